package deliver

import (
	"bytes"
	"crypto/tls"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// mostFloodCPU bounds what a flooded attempt may take of a processor, that of the
// receiver in the same process included. Without bounds it took a minute. The receiver
// floods until the attempt gets its turn to end it, so a busy machine adds to it: the
// least of some attempts counts.
const (
	mostFloodCPU  = 500 * time.Millisecond
	floodAttempts = 20
)

// BenchmarkHTTP2Flood measures an attempt whose receiver sends endless frames after the
// status, for each kind of frame, relative to an ordinary attempt on a new connection.
func BenchmarkHTTP2Flood(b *testing.B) {
	var plain time.Duration
	for _, flood := range []struct {
		name  string
		frame []byte
	}{
		{"none", nil},
		{"WINDOW_UPDATE", frameOf(8, 0, 0, code(1)...)},
		{"PING", frameOf(framePing, 0, 0, make([]byte, 8)...)},
		{"SETTINGS", frameOf(frameSettings, 0, 0)},
		{"empty_DATA", frameOf(frameData, 0, 1)},
		{"CONTINUATION", frameOf(frameContinuation, 0, 1)},
		{"RST_STREAM", frameOf(frameReset, 0, 101, code(8)...)},
	} {
		b.Run(flood.name, func(b *testing.B) {
			ca := newAuthority(b)
			many := bytes.Repeat(flood.frame, 1000)
			var flooding chan struct{}
			receiver := &http2Receiver{at: frameData, f: func(c http2Conn, s uint32) {
				switch flood.name {
				case "none":
					_ = c.frame(frameHeaders, flagEndHeaders|flagEndStream, s, 0x88)
					close(flooding)
					return
				case "CONTINUATION":
					_ = c.frame(frameHeaders, 0, s, 0x88)
				default:
					_ = c.frame(frameHeaders, flagEndHeaders, s, 0x88)
				}
				go func() {
					defer close(flooding)
					for {
						if _, err := c.Write(many); err != nil {
							return
						}
					}
				}()
			}}
			url := secured(b, &tls.Config{Certificates: []tls.Certificate{ca.local()}, NextProtos: []string{"h2"}}, receiver.serve)
			attempt := func() time.Duration {
				before := processorTime(b)
				flooding = make(chan struct{})
				c := ca.trust(newHTTP(Config{AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}.WithDefaults()))
				if a := c.deliver(b.Context(), testEndpoint(url), testEvent, time.Now()); a.status != 200 {
					b.Errorf("%+v", a)
				}
				<-flooding // until the connection has ended
				c.Close()
				return processorTime(b) - before
			}
			var all, least time.Duration
			n := 0
			for b.Loop() {
				used := attempt()
				if n++; n == 1 || used < least {
					least = used
				}
				all += used
			}
			for tried := n; least > mostFloodCPU && tried < floodAttempts; tried++ {
				least = min(least, attempt())
			}
			each := all / time.Duration(n)
			if flood.name == "none" {
				plain = each
			}
			b.ReportMetric(float64(each.Microseconds()), "cpu-µs/op")
			if plain > 0 {
				b.ReportMetric(float64(each)/float64(plain), "plain-attempts/op")
			}
			if least > mostFloodCPU {
				b.Errorf("each of %d attempts took at least %v of a processor", max(n, floodAttempts), least)
			}
		})
	}
}

// processorTime is what this process has used.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
