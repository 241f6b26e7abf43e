package command

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"spamtraps.internal/libs/daemon"
)

// printReports prints the table of check: a line a folder, and below the table what needs more words.
func printReports(out io.Writer, reports []Report) {
	ordered := slices.Clone(reports)
	slices.SortStableFunc(ordered, worstFirst)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MAILBOX\tCONNECTION\tLOGIN\tFOLDER\tMAILS\tUNSEEN\tTO FETCH")
	bad, fetch := 0, 0
	for _, r := range ordered {
		head := daemon.Printable(r.Mailbox) + "\t" + r.Connection + "\t" + r.Login
		if len(r.Folders) == 0 {
			fmt.Fprintf(table, "%s\t%s\t\t\t\n", head, failed(r.Problem, "no folder"))
		}
		for _, f := range r.Folders {
			fmt.Fprintf(table, "%s\t%s\n", head, f.row())
			head = "\t\t"
		}
		fetch += r.total()
		if r.Problem != nil || slices.ContainsFunc(r.Folders, func(f FolderReport) bool { return f.Problem != nil }) {
			bad++
		}
	}
	_ = table.Flush()
	for _, r := range ordered {
		r.printDetails(out)
	}
	fmt.Fprintf(out, "\n%d mailboxes, %d with a problem; %d mails would be fetched. Nothing was changed.\n", len(reports), bad, fetch)
}

func failed(p *Problem, otherwise string) string {
	if p == nil {
		return otherwise
	}
	return "FAILED (" + p.Kind + ")"
}

func (f *FolderReport) row() string {
	name := daemon.Printable(f.Name)
	if f.Why != "configured" {
		name += " (" + daemon.Printable(f.Why) + ")"
	}
	if f.Problem != nil {
		return name + "\t" + failed(f.Problem, "") + "\t\t"
	}
	fetch := fmt.Sprint(f.ToFetch)
	if f.Large > 0 {
		fetch += fmt.Sprintf(", but %d too large", f.Large)
	}
	return fmt.Sprintf("%s\t%d\t%d\t%s", name, f.Mails, f.Unseen, fetch)
}

// printDetails prints what is to be known of a mailbox beside its lines in the table.
func (r *Report) printDetails(out io.Writer) {
	fmt.Fprintf(out, "\n%s at %s: fetch %s, after that %s\n", daemon.Printable(r.Mailbox), daemon.Printable(r.Server), r.Fetch, daemon.Printable(r.After))
	if r.Problem != nil {
		r.Problem.print(out)
	}
	if len(r.Capabilities) > 0 {
		fmt.Fprintf(out, "  offers: %s\n", strings.Join(r.Capabilities, " "))
		fmt.Fprintf(out, "  folders: %d in the mailbox (%s)", r.Found, strings.Join(r.Names, ", "))
		for _, missing := range r.Missing {
			fmt.Fprintf(out, "; no %s among them", daemon.Printable(missing))
		}
		fmt.Fprintln(out)
	}
	for _, f := range r.Folders {
		if f.Problem != nil && f.Problem != r.Problem {
			f.Problem.print(out)
		}
	}
	for _, note := range r.Notes {
		fmt.Fprintf(out, "  note: %s\n", note)
	}
}

func (p *Problem) print(out io.Writer) {
	fmt.Fprintf(out, "  problem: %s\n", p.Text)
	if p.Do != "" {
		fmt.Fprintf(out, "  what to do: %s\n", p.Do)
	}
}
