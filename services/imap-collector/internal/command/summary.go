package command

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/collector"
	"spamtraps.internal/libs/daemon"
)

// Outcome is what came of a run, in one word.
type Outcome int

// The outcomes there are, from the best to the worst.
const (
	Emptied  Outcome = iota // every mailbox, of what was asked
	Oversize                // the same, but for mails that are too large
	Failed                  // a mailbox was not emptied, and the table says why
)

// OutcomeOf tells what came of a run. A mailbox counts as emptied when everything that was to be fetched is published, and marked as asked.
func OutcomeOf(results []collector.Result) Outcome {
	outcome := Emptied
	for _, r := range results {
		switch {
		case r.Err != nil || r.Parked > 0 || r.Unmarked > 0:
			return Failed
		case r.Oversize > 0:
			outcome = Oversize
		}
	}
	return outcome
}

// Summary prints the table that ends a run: a line a mailbox, those that need somebody last, and then what to do about these.
func Summary(out io.Writer, accounts []account.Account, results []collector.Result) {
	ordered := slices.Clone(results)
	slices.SortStableFunc(ordered, func(a, b collector.Result) int {
		return int(OutcomeOf([]collector.Result{a})) - int(OutcomeOf([]collector.Result{b}))
	})
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MAILBOX\tFOUND\tPUBLISHED\tSIZE\tTOO LARGE\tPARKED\tUNMARKED\tTOOK\tRESULT")
	all := make([]collector.Status, len(results))
	for i, r := range ordered {
		all[i].Result = r
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%d\t%d\t%d\t%s\t%s\n", daemon.Printable(r.Name), r.Found, r.Published, size(r.Bytes), r.Oversize, r.Parked, r.Unmarked,
			r.Took.Round(100*time.Millisecond), inWords(r))
	}
	total := sumOf(all)
	fmt.Fprintf(table, "%d mailboxes\t%d\t%d\t%s\t%d\t%d\t%d\t\t\n", len(results), total.Found, total.Published, size(total.Bytes), total.Oversize, total.Parked, total.Unmarked)
	_ = table.Flush()
	for _, r := range ordered {
		if r.Err == nil {
			continue
		}
		fmt.Fprintf(out, "\n%s: %s\n", daemon.Printable(r.Name), daemon.Printable(r.Err.Error()))
		for i := range accounts {
			if do := adviceFor(&accounts[i], r.Err.Error()); accounts[i].Name == r.Name && do != "" {
				fmt.Fprintf(out, "  what to do: %s\n", do)
			}
		}
	}
	if total.Oversize > 0 {
		fmt.Fprintf(out, "\n%d mails were left where they are because they are too large: the log names them; IMAP_MAX_MESSAGE_BYTES and AMQP_MAX_MESSAGE_BYTES, and the broker's own limit, decide.\n", total.Oversize)
	}
}

func inWords(r collector.Result) string {
	switch {
	case r.Err != nil:
		return "FAILED"
	case r.Parked > 0:
		return "some could not be fetched"
	case r.Unmarked > 0:
		return "published, but not all could be marked"
	case r.Oversize > 0:
		return "all but what is too large"
	default:
		return "ok"
	}
}

// ErrNotEmptied is the end of a run that has left something where it was.
var ErrNotEmptied = errors.New("not every mailbox was emptied of what was asked: the table says which")
