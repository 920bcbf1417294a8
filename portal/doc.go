// Package portal serves the page on which an account sees what became of its events,
// and the operator every account (docs/CONTRACT.md §9). It is HTML from templates that
// are compiled in, and readable without JavaScript.
//
//	one-time link ─▶ enter ─▶ session, in a cookie ─┐
//	operator's token ─▶ operator ─▶ session ────────┤
//	                                                ▼
//	browser ─▶ guard: headers, session, account, CSRF ─▶ page ─▶ api.As ─▶ the API's handler
//
// # What it promises
//
//   - It reads and changes nothing by itself: each page calls the API's handler within the
//     process as the session, so every check, limit and audit line of the API applies.
//   - A session is for one account, an operator's for all. Any other account looks as if it
//     did not exist.
//   - A link opens once, also under concurrent use. Opening it needs a click, so a preview of
//     a message does not use it up. What a token made ends with the token.
//   - The outbox stores hashes of links and sessions alone. The cookie is HttpOnly,
//     SameSite=Lax, below the portal's path, and Secure behind https.
//   - Each form carries a token that is derived from the cookie, and a request from another
//     site is refused by its headers.
//   - No answer needs another host, an inline script or an inline style, and the
//     Content-Security-Policy forbids them. No secret is in a page unless it was asked for.
//   - Whatever accent is asked for, text can be read. A value of a brand that comes from an
//     account's row is checked like a setting, and ignored where it is not valid.
//   - Whoever guesses links or the operator's token is slowed down by address.
//
// # What happens on failure
//
// An error of the API is shown with its message, at the field where it names one. A session
// that has ended leads to the page that says how to get another link. An outbox that does
// not answer is a 503 in words.
//
// # Where to look
//
//	routes, headers                portal.go
//	links, cookies, CSRF           session.go
//	limits of wrong entries        limit.go
//	calls of the API               client.go
//	words on the pages             texts/en.yaml, the one file to translate
//	states in words and colours    state.go
//	what the portal looks like     brand.go: valid values; brand_account.go: an account's;
//	                               look.go: addresses of theme and logo; colour.go: contrast
//	who may show it in a frame     frame.go
//	htmx                           static/README.md: version, licence, checksum
//
// # What it does not do
//
// It holds no state but the limits of entries, and what it has logged of brands. Links are made by the API and by `walhook
// portal`, and stored by package outbox/admin.
package portal
