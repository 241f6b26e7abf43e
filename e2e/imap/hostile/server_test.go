package hostile_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/e2e/imap/hostile"
)

// Where no scenario interferes the server is an honest one: what goes wrong in a test is then the scenario's doing.
func TestHonestDialogue(t *testing.T) {
	server := hostile.Start(t, "honest", hostile.Scenario{Setup: func(s *hostile.Server) {
		s.Fill("INBOX", 743_000_000, 5)
		s.Flag("INBOX", 743_000_001, `\Seen`)
		s.Add("Done", "", 9)
	}})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", server.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	read := bufio.NewReader(conn)
	until := func(last string) string {
		var all strings.Builder
		for {
			line, err := read.ReadString('\n')
			if err != nil {
				t.Fatalf("after %q: %v", &all, err)
			}
			all.WriteString(line)
			if strings.HasPrefix(line, last) {
				return all.String()
			}
		}
	}
	until("* OK ")
	body := server.Body(hostile.Key{Folder: "INBOX", UIDValidity: 1700000001, UID: 743_000_002})
	for _, step := range []struct{ send, want string }{
		{"a CAPABILITY", `(?s)\* CAPABILITY IMAP4rev1.*IDLE.*a OK`},
		{"a SELECT INBOX", `a BAD`},
		{"a LOGIN nobody wrong", `a NO \[AUTHENTICATIONFAILED\]`},
		{fmt.Sprintf("a LOGIN {%d+}\r\n%s \"%s\"", len(server.User), server.User, server.Password), `a OK \[CAPABILITY`},
		{`a LIST "" "*"`, `(?s)\* LIST \(\) "/" "INBOX".*\* LIST \(\\Junk\) "/" "Junk".*a OK`},
		{"a STATUS INBOX (MESSAGES UNSEEN)", `MESSAGES 5 UNSEEN 4`},
		{"a SELECT INBOX", `(?s)\* 5 EXISTS.*UIDVALIDITY 1700000001.*UIDNEXT 743000005.*a OK \[READ-WRITE\]`},
		{"a UID SEARCH UNSEEN", `\* SEARCH 743000000 743000002 743000003 743000004\r\na OK`},
		{"a UID SEARCH RETURN (ALL COUNT) UID 1:743000003 UNSEEN", `\* ESEARCH \(TAG "a"\) UID ALL 743000000,743000002:743000003 COUNT 3\r\na OK`},
		{"a UID SEARCH NOT SEEN UID 743000004:*", `\* SEARCH 743000004\r\n`},
		{"a UID FETCH 743000002 (FLAGS BODY.PEEK[])", regexp.QuoteMeta(fmt.Sprintf("* 3 FETCH (UID 743000002 FLAGS () BODY[] {%d}\r\n%s)\r\na OK", len(body), body))},
		{"a UID STORE 743000002 +FLAGS (\\Seen)", `\* 3 FETCH \(UID 743000002 FLAGS \(\\Seen\)\)\r\na OK`},
		{"a UID STORE 743000002:743000003 +FLAGS.SILENT (\\Deleted)", `^a OK`},
		{"a UID EXPUNGE 743000002", `^\* 3 EXPUNGE\r\na OK`},
		{"a UID MOVE 743000000 Done", `\[COPYUID 9 743000000 1:1\].*\r\n\* 1 EXPUNGE\r\na OK`},
		{"a UID COPY 743000004 Nowhere", `a NO \[TRYCREATE\]`},
		{"a UID SEARCH ALL", `\* SEARCH 743000001 743000003 743000004\r\n`},
	} {
		if _, err := io.WriteString(conn, step.send+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if got := until("a "); !regexp.MustCompile(step.want).MatchString(got) {
			t.Errorf("%s: %q does not match %s", step.send, got, step.want)
		}
	}
	if _, err := io.WriteString(conn, "a IDLE\r\n"); err != nil {
		t.Fatal(err)
	}
	until("+ ")
	go server.Arrive("INBOX")
	until("* 4 EXISTS")
	if _, err := io.WriteString(conn, "DONE\r\n"); err != nil {
		t.Fatal(err)
	}
	until("a OK")
	want := map[uint32]string{743_000_000: "moved", 743_000_002: "expunged", 743_000_003: "deleted"}
	taken := server.Taken()
	for uid, what := range want {
		if got := taken[hostile.Key{Folder: "INBOX", UIDValidity: 1700000001, UID: uid}]; got != what {
			t.Errorf("mail %d was %q, not %s", uid, got, what)
		}
	}
	if len(taken) != len(want) || len(server.Problems()) != 0 {
		t.Errorf("taken %v, problems %q", taken, server.Problems())
	}
}
