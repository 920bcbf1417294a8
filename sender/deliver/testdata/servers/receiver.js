// Answers 200 on five ports, and prints each request that came as a line of JSON.
const http = require("node:http"), https = require("node:https"), http2 = require("node:http2");
const { createHash } = require("node:crypto"), { readFileSync } = require("node:fs");

const dir = process.argv[2];
const pem = readFileSync(dir + "/server.pem"), ca = readFileSync(dir + "/authority.pem");

function receive(req, res) {
  const chunks = [];
  req.on("data", (chunk) => chunks.push(chunk));
  req.on("end", () => {
    const body = Buffer.concat(chunks);
    console.log(JSON.stringify({
      method: req.method, target: req.url, host: req.headers[":authority"] ?? req.headers.host,
      protocol: req.httpVersion, encoding: req.headers["transfer-encoding"] ?? "",
      length: body.length, sha256: createHash("sha256").update(body).digest("hex"),
    }));
    res.end();
  });
}

const servers = {
  plain: http.createServer(receive),
  tls: https.createServer({ cert: pem, key: pem }, receive),
  http2: http2.createSecureServer({ cert: pem, key: pem }, receive),
  h2c: http2.createServer(receive),
  client_cert: https.createServer({ cert: pem, key: pem, ca, requestCert: true, rejectUnauthorized: true }, receive),
};
const ports = {};
for (const [kind, server] of Object.entries(servers)) {
  server.listen(0, "127.0.0.1", () => {
    ports[kind] = "127.0.0.1:" + server.address().port;
    if (Object.keys(ports).length === Object.keys(servers).length) console.log(JSON.stringify(ports));
  });
}
process.stdin.on("end", () => process.exit()).resume();
