package chaos_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"walhook/internal/chaos"
)

// echo is a server that sends back what it gets, and a proxy before it.
func echo(t *testing.T) *chaos.Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	p, err := chaos.NewProxy(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func dial(t *testing.T, p *chaos.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a line and waits for it to come back.
func ask(conn net.Conn, line string, within time.Duration) error {
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && got != line+"\n" {
		return errors.New("got " + got)
	}
	return err
}

func TestProxy_RelaysAndPassesTheEndOn(t *testing.T) {
	conn := dial(t, echo(t))
	if err := ask(conn, "hello", time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestProxy_IsAsSlowAsItsWeather(t *testing.T) {
	p := echo(t)
	conn := dial(t, p)
	p.Set(chaos.Weather{Latency: 30 * time.Millisecond})
	began := time.Now()
	if err := ask(conn, "far away", time.Minute); err != nil || time.Since(began) < 60*time.Millisecond {
		t.Errorf("there and back took %s: %v", time.Since(began), err)
	}
	p.Set(chaos.Weather{Bandwidth: 100})
	began = time.Now()
	if err := ask(conn, "ten bytes", time.Minute); err != nil || time.Since(began) < 200*time.Millisecond {
		t.Errorf("20 bytes at 100 a second took %s: %v", time.Since(began), err)
	}
}

func TestProxy_ASilenceHoldsWhatIsSent(t *testing.T) {
	p := echo(t)
	conn := dial(t, p)
	p.Set(chaos.Weather{Silent: true})
	if err := ask(conn, "anybody", 100*time.Millisecond); err == nil {
		t.Error("an answer came through a silent network")
	}
	late := dial(t, p) // the proxy takes it, and that is all
	p.Set(chaos.Weather{})
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != "anybody\n" {
		t.Errorf("after the silence: %q, %v", got, err)
	}
	if err := ask(late, "me too", time.Minute); err != nil {
		t.Error(err)
	}
}

func TestProxy_ResetsAndRefuses(t *testing.T) {
	p := echo(t)
	conn := dial(t, p)
	if err := ask(conn, "hello", time.Minute); err != nil {
		t.Fatal(err)
	}
	p.Reset()
	if err := ask(conn, "still there", time.Minute); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, io.EOF) {
		t.Errorf("after a reset: %v", err)
	}
	p.Set(chaos.Weather{Refusing: true})
	if refused, err := net.Dial("tcp", p.Addr()); err == nil {
		t.Cleanup(func() { _ = refused.Close() })
		if err := ask(refused, "hello", time.Minute); err == nil {
			t.Error("a refusing proxy relayed")
		}
	}
	p.Set(chaos.Weather{})
	if err := ask(dial(t, p), "hello", time.Minute); err != nil {
		t.Error(err)
	}
}
