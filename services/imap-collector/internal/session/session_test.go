package session_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/imap-collector/internal/imaptest"
	"spamtraps.internal/imap-collector/internal/session"
)

// What is told of a folder after a SELECT is of that folder, however often folders are changed.
func TestMessagesAreThoseOfTheSelectedFolder(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	if err := server.User.Create("Junk", nil); err != nil {
		t.Fatal(err)
	}
	server.Deliver(t, "INBOX", "a", "b", "c")
	server.Deliver(t, "Junk", "d")
	a := imaptest.Account(server.Addr)
	s, err := new(session.Dialer).Open(t.Context(), &a, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2000 {
		for folder, want := range map[string]uint32{"INBOX": 3, "Junk": 1} {
			if _, err := s.Select(folder, false); err != nil {
				t.Fatal(err)
			}
			if n := s.Messages(); n != want {
				t.Fatalf("%s has %d mails, not %d", folder, n, want)
			}
		}
	}
}

// When our own side hangs, so that nothing is read of what the server owes, the session ends all the same, and nobody waits for it.
func TestOurOwnSideHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := imaptest.NewNet()
		server := imaptest.NewMemoryOn(t, network, imaptest.Caps())
		server.Deliver(t, "INBOX", strings.Repeat("x", 100_000), "b")
		a := imaptest.Account("in-process:143")
		s, err := (&session.Dialer{Dial: network.Dial}).Open(context.Background(), &a, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Select("INBOX", false); err != nil {
			t.Fatal(err)
		}
		hanging := make(chan struct{})
		from := time.Now()
		fetched := s.StartFetch([]uint32{1, 2}, 100_001, false, func(uint32, int64) []byte {
			<-hanging
			return nil
		})
		err = fetched.Wait()
		if err == nil || !strings.Contains(err.Error(), "a fault of this program") || session.KindOf(err) != session.Network {
			t.Errorf("got %v", err)
		}
		s.Close()
		if took := time.Since(from); took > 3*time.Minute {
			t.Errorf("it took %s", took)
		}
		close(hanging)
		server.Stop()
		_ = network.Close()
	})
}
