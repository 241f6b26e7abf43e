package command

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/collector"
)

func TestRate(t *testing.T) {
	var r rate
	now := time.Now()
	at := func(seconds, published, found int) string {
		return r.after(now.Add(time.Duration(seconds)*time.Second), sum{Result: collector.Result{Published: published, Found: found, Bytes: int64(published) << 10}})
	}
	if got := at(0, 0, 1000); got != "" {
		t.Errorf("%q", got)
	}
	if got := at(10, 100, 1000); got != ", 10/s, 10.0 KiB/s, 1m30s left" {
		t.Errorf("%q", got)
	}
	if got := at(14, 120, 1000); got != ", 9/s, 8.6 KiB/s, 1m43s left" {
		t.Errorf("%q", got)
	}
	if got := at(30, 120, 1000); got != "" { // the last while it stood still
		t.Errorf("%q", got)
	}
	if got := at(31, 1000, 1000); strings.Contains(got, "left") {
		t.Errorf("%q", got)
	}
}

// Without a terminal there is a line of the log now and then.
func TestProgressWithoutATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
		defer cancel()
		Progress(ctx, nil, zerolog.New(&log), func() []collector.Status {
			return []collector.Status{
				{Result: collector.Result{Name: "a", Found: 10, Published: 4, Bytes: 5}, Doing: collector.DoingFetching},
				{Result: collector.Result{Name: "b", Found: 3, Published: 3, Bytes: 6}, Doing: collector.DoingDone},
			}
		})
		want := `{"level":"info","published":7,"found":13,"bytes":11,"mailboxes":2,"done":1,"failed":0,"message":"progress"}` + "\n"
		if log.String() != want+want {
			t.Errorf("%s", &log)
		}
	})
}

func TestSummary(t *testing.T) {
	ok := collector.Result{Name: "ok", Found: 3, Published: 3, Bytes: 3 << 20, Took: 1234 * time.Millisecond}
	large := collector.Result{Name: "large", Found: 3, Published: 2, Oversize: 1}
	failed := collector.Result{Name: "failed", Found: 3, Err: errors.New("log in: the server says \"NO [AUTHENTICATIONFAILED]\x1b[2J\"")}
	for _, row := range []struct {
		results []collector.Result
		want    Outcome
	}{
		{nil, Emptied},
		{[]collector.Result{ok}, Emptied},
		{[]collector.Result{ok, large}, Oversize},
		{[]collector.Result{large, failed}, Failed},
		{[]collector.Result{{Parked: 1}}, Failed},
		{[]collector.Result{{Unmarked: 1, Oversize: 1}}, Failed},
	} {
		if got := OutcomeOf(row.results); got != row.want {
			t.Errorf("%+v: %v", row.results, got)
		}
	}
	var out bytes.Buffer
	Summary(&out, []account.Account{{Name: "failed", Host: "imap.example"}}, []collector.Result{failed, large, ok})
	want := `MAILBOX      FOUND  PUBLISHED  SIZE     TOO LARGE  PARKED  UNMARKED  TOOK  RESULT
ok           3      3          3.0 MiB  0          0       0         1.2s  ok
large        3      2          0 B      1          0       0         0s    all but what is too large
failed       3      0          0 B      0          0       0         0s    FAILED
3 mailboxes  9      5          3.0 MiB  1          0       0               

failed: log in: the server says "NO [AUTHENTICATIONFAILED]\u001b[2J"
  what to do: user name or password is wrong, or the provider wants an app password or has IMAP switched off for this mailbox: try both in the provider's web mail and look into its settings

1 mails were left where they are because they are too large: the log names them; IMAP_MAX_MESSAGE_BYTES and AMQP_MAX_MESSAGE_BYTES, and the broker's own limit, decide.
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}
