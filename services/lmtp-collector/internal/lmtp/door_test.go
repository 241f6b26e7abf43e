package lmtp

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// When the limit is reached, the connection that has been idle for longest makes room, and none that is at work.
func TestIdleConnectionMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Defaults()
		cfg.MaxConnections = 2
		d := newDoor(nil, cfg, zerolog.Nop(), newDoorMetrics(prometheus.NewRegistry()))
		// come lets a connection in, which waits for a command, and returns what its peer has been told in the end.
		come := func() (told chan string) {
			ours, peer := net.Pipe()
			conn, setting := d.admit(ours)
			if conn == nil {
				_, _ = ours.Close(), peer.Close()
				if setting != "LMTP_MAX_CONNECTIONS" {
					t.Errorf("refused because of %q", setting)
				}
				return nil
			}
			told = make(chan string, 1)
			go func() {
				text, _ := io.ReadAll(peer)
				told <- string(text)
			}()
			go func() {
				_, _ = conn.Read(make([]byte, 100))
				_ = conn.Close()
			}()
			synctest.Wait()
			return told
		}
		first := come()
		time.Sleep(time.Second)
		second := come()
		if come() != nil {
			t.Fatal("a connection that has just come had to go")
		}
		time.Sleep(longIdle)
		third := come()
		if third == nil {
			t.Fatal("no idle connection made room")
		}
		if text := <-first; !strings.HasPrefix(text, "421 4.3.2") {
			t.Errorf("the first was told %q", text)
		}
		if n := d.count(); n != 2 {
			t.Errorf("%d connections are open", n)
		}
		d.mu.Lock()
		for conn := range d.open {
			go conn.Stop(time.Now())
		}
		d.mu.Unlock()
		<-second
		<-third
	})
}
