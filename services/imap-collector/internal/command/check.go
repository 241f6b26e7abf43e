// Package command is what imap-collector says to people beside its log: the command `check`, and the progress and summary of a run that ends.
package command

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/rs/zerolog"
	"github.com/spf13/pflag"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/imap-collector/internal/config"
	"spamtraps.internal/imap-collector/internal/session"
	"spamtraps.internal/imap-collector/internal/state"
	"spamtraps.internal/libs/daemon"
)

// Check returns the subcommand that looks at all mailboxes and changes nothing.
func Check() daemon.Command[config.Config] {
	var asJSON bool
	return daemon.Command[config.Config]{
		Name:  "check",
		Usage: "[--json] [NAME…]",
		About: "log in to all mailboxes, or those of these names, show what is there and what would be fetched, and change nothing; 1: one of them has a problem",
		Flags: func(flags *pflag.FlagSet) { flags.BoolVar(&asJSON, "json", false, "print a JSON object a mailbox") },
		Run: func(ctx context.Context, p daemon.Process, cfg config.Config, args []string) int {
			accounts, unknown := named(cfg.Mine(), args)
			if len(unknown) > 0 {
				fmt.Fprintf(p.Stderr, "imap-collector: check: there is no mailbox %s\n", strings.Join(quotedAll(unknown), ", "))
				return daemon.ExitRefused
			}
			reports := newChecker(state.Peek(cfg.IMAP.State, zerolog.Nop()), cfg.IMAP.Timeout).all(ctx, accounts, cfg.IMAP.Parallel)
			if asJSON {
				encoder := json.NewEncoder(p.Stdout)
				encoder.SetEscapeHTML(false)
				for _, r := range reports {
					_ = encoder.Encode(r)
				}
			} else {
				printReports(p.Stdout, reports)
			}
			if slices.ContainsFunc(reports, func(r Report) bool {
				return r.Problem != nil || slices.ContainsFunc(r.Folders, func(f FolderReport) bool { return f.Problem != nil })
			}) {
				return daemon.ExitFailed
			}
			return daemon.ExitOK
		},
	}
}

// named picks the accounts of these names, or ids; all when there are none.
func named(accounts []account.Account, names []string) (picked []account.Account, unknown []string) {
	if len(names) == 0 {
		return accounts, nil
	}
	for _, name := range names {
		found := false
		for _, a := range accounts {
			if a.Name == name || a.ID == name || a.Username == name {
				found = true
				if !slices.ContainsFunc(picked, func(p account.Account) bool { return p.ID == a.ID }) {
					picked = append(picked, a)
				}
			}
		}
		if !found {
			unknown = append(unknown, name)
		}
	}
	return picked, unknown
}

func quotedAll(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = fmt.Sprintf("%q", name)
	}
	return quoted
}

// Report is what check has found out about one mailbox. It is also what `check --json` prints.
type Report struct {
	Mailbox      string         `json:"mailbox"`
	ID           string         `json:"id"`
	Server       string         `json:"server"`
	Connection   string         `json:"connection"`
	Login        string         `json:"login"`
	Capabilities []string       `json:"capabilities,omitempty"`
	Found        int            `json:"folders_found,omitempty"` // of the mailbox
	Names        []string       `json:"folder_names,omitempty"`  // of those, the first
	Folders      []FolderReport `json:"folders,omitempty"`       // that are to be looked at
	Missing      []string       `json:"missing,omitempty"`       // wanted, and there is none
	Fetch        string         `json:"fetch"`
	After        string         `json:"after"`
	Notes        []string       `json:"notes,omitempty"`
	Problem      *Problem       `json:"problem,omitempty"`
}

// FolderReport is what there is in one folder.
type FolderReport struct {
	Name    string   `json:"name"`
	Why     string   `json:"why"` // it is looked at
	Junk    bool     `json:"junk,omitempty"`
	Mails   int      `json:"mails"`
	Unseen  int      `json:"unseen"`
	ToFetch int      `json:"to_fetch"`
	Large   int      `json:"too_large,omitempty"` // of those, by what the server says of their size
	Problem *Problem `json:"problem,omitempty"`
}

// Problem is what went wrong, and what to do about it.
type Problem struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
	Do   string `json:"do,omitempty"`
}

func newProblem(a *account.Account, err error) *Problem {
	return &Problem{Kind: string(session.KindOf(err)), Text: daemon.Printable(err.Error()), Do: adviceFor(a, err.Error())}
}

// checker looks at mailboxes.
type checker struct {
	dialer *session.Dialer
	store  *state.Store
}

func newChecker(store *state.Store, timeout time.Duration) *checker {
	return &checker{dialer: &session.Dialer{Program: "imap-collector", Version: daemon.Version(), Timeout: timeout}, store: store}
}

// mailboxLimit is how long one mailbox may take.
const mailboxLimit = 5 * time.Minute

// all looks at several mailboxes at a time, and returns what it found in their order.
func (c *checker) all(ctx context.Context, accounts []account.Account, parallel int) []Report {
	reports := make([]Report, len(accounts))
	slots := make(chan struct{}, parallel)
	var group sync.WaitGroup
	for i := range accounts {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, mailboxLimit)
			defer cancel()
			reports[i] = c.one(ctx, &accounts[i])
		})
	}
	group.Wait()
	return reports
}

func (c *checker) one(ctx context.Context, a *account.Account) Report {
	r := Report{
		Mailbox: a.Name, ID: a.ID, Server: fmt.Sprintf("%s:%d", a.Host, a.Port), Connection: connection(a), Fetch: string(a.Fetch), After: a.After.String(),
	}
	s, err := c.dialer.Open(ctx, a, false)
	if err != nil {
		r.Login = describe(a.Login)
		r.Problem = newProblem(a, err)
		return r
	}
	defer s.Logout()
	r.Login = strings.TrimPrefix(s.Mechanism()+", "+describe(a.Login), ", ")
	r.Capabilities = capabilities(s.Caps())
	r.Notes = notes(a, s)
	found, err := s.Folders()
	if err != nil {
		r.Problem = newProblem(a, err)
		return r
	}
	r.Found, r.Names = len(found), names(found)
	chosen, missing := session.Choose(found, a.Folders)
	r.Missing = missing
	for _, folder := range chosen {
		report, err := c.folder(s, a, folder)
		if err != nil {
			report.Problem = newProblem(a, err)
		}
		r.Folders = append(r.Folders, report)
		if e, ok := errors.AsType[*session.Error](err); err != nil && (!ok || !e.Answered) {
			r.Problem = report.Problem // the session is over
			break
		}
		r.Notes = append(r.Notes, partial(a, report)...)
	}
	return r
}

// mostNames is how many of a mailbox's folders are shown.
const mostNames = 50

func names(folders []session.Folder) []string {
	var list []string
	for _, f := range folders[:min(len(folders), mostNames)] {
		list = append(list, daemon.Printable(f.Name))
	}
	slices.Sort(list)
	return list
}

// connection says how the connection is made private.
func connection(a *account.Account) string {
	text := map[account.TLSMode]string{account.TLSImplicit: "TLS", account.TLSStartTLS: "STARTTLS", account.TLSNone: "not encrypted"}[a.TLS]
	if a.TLS != account.TLSNone && !a.CheckCert {
		text += ", certificate not checked"
	}
	if a.Proxy.IsSet() {
		text += ", by proxy"
	}
	return text
}

// describe says how a login is done, and how long that will go well.
func describe(login auth.Login) string {
	text := ""
	if d, ok := login.(interface{ Describe() string }); ok {
		text = d.Describe()
	}
	l, ok := login.(interface{ Lasts() auth.Lasts })
	if !ok {
		return text
	}
	lasts := l.Lasts()
	if !lasts.Since.IsZero() {
		text += fmt.Sprintf(", %s old", days(time.Since(lasts.Since)))
	}
	if !lasts.Until.IsZero() {
		text += fmt.Sprintf(", ends in %s unless it is used", days(time.Until(lasts.Until)))
	}
	return text
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func capabilities(set imap.CapSet) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, daemon.Printable(string(name)))
	}
	slices.Sort(names)
	return names
}

// searchWindow is how many mails one question is about.
const searchWindow = 10_000

// folder counts what is in a folder. It opens it by EXAMINE, which changes nothing.
func (c *checker) folder(s *session.Session, a *account.Account, chosen session.Chosen) (FolderReport, error) {
	r := FolderReport{Name: chosen.Name, Why: chosen.Why, Junk: chosen.Junk}
	selected, err := s.Select(chosen.Name, true)
	if err != nil {
		return r, err
	}
	r.Mails = int(s.Messages())
	if r.Unseen, err = s.Count(session.Search{Unseen: true}, searchWindow); err != nil {
		return r, err
	}
	published, err := c.store.Folder(a.ID, chosen.Name, selected.UIDValidity)
	if err != nil {
		return r, &session.Error{Kind: session.Refused, Doing: "look into IMAP_STATE", Err: err, Answered: true}
	}
	wanted := session.Search{Unseen: a.Fetch == account.FetchUnseen}
	window := uint32(s.Window(searchWindow))
	for first := uint32(1); first <= s.Messages(); first += window {
		found := s.StartSearch(first, min(first+window-1, s.Messages()), wanted)
		if err := found.Wait(); err != nil {
			return r, err
		}
		if err := r.count(s, a, published.Missing(found.Ranges)); err != nil {
			return r, err
		}
	}
	return r, nil
}

// mostSizes is how many mails of a folder are asked for their size.
const mostSizes = 20_000

// count adds mails that would be fetched.
func (r *FolderReport) count(s *session.Session, a *account.Account, ranges []state.Range) error {
	var uids []uint32
	for _, found := range ranges {
		for uid := uint64(found.First); uid <= uint64(found.Last); uid++ {
			uids = append(uids, uint32(uid))
		}
	}
	r.ToFetch += len(uids)
	if len(uids) == 0 || r.ToFetch > mostSizes {
		return nil
	}
	sizes := s.StartSizes(uids)
	if err := sizes.Wait(); err != nil {
		return err
	}
	for _, mail := range sizes.Mails {
		if mail.Size > a.MaxMessageBytes {
			r.Large++
		}
	}
	return nil
}

// notes are what an operator should know of a mailbox that works.
func notes(a *account.Account, s *session.Session) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, daemon.Printable(fmt.Sprintf(format, args...))) }
	if alert := s.Alert(); alert != "" {
		add("the server wants you to know: %s", alert)
	}
	list = append(list, limits(capabilities(s.Caps()))...)
	if !s.CanIdle() {
		add("the server has no IDLE: new mail is found by looking every %s", a.PollInterval)
	}
	switch {
	case a.After.Kind == account.AfterDelete && !s.CanExpunge() && !a.Expunge:
		add("the server cannot expunge single mails (UIDPLUS): mails are marked \\Deleted and stay until somebody expunges, or IMAP_EXPUNGE=always")
	case a.After.Kind == account.AfterMove && !s.CanMove() && !s.CanExpunge() && !a.Expunge:
		add("the server can neither move nor expunge single mails (MOVE, UIDPLUS): mails are copied and marked \\Deleted, and stay until somebody expunges, or IMAP_EXPUNGE=always")
	}
	return list
}

// limits tells of a server that lets us see a folder in parts only (RFC 9738).
func limits(capabilities []string) []string {
	var list []string
	for _, name := range capabilities {
		if limit, found := strings.CutPrefix(strings.ToUpper(name), "MESSAGELIMIT="); found {
			list = append(list, fmt.Sprintf("the server lets one command be about %s mails at most; larger folders are read in parts", limit))
		}
	}
	return list
}

// roundSizes are the limits that providers offer for what IMAP shows of a folder.
var roundSizes = map[int]bool{1000: true, 2000: true, 5000: true, 10_000: true, 100_000: true}

// partial tells of a folder that seems to be shown in part only.
func partial(a *account.Account, r FolderReport) []string {
	host := strings.ToLower(a.Host)
	switch {
	case !roundSizes[r.Mails]:
		return nil
	case gmail.MatchString(host):
		return []string{fmt.Sprintf("%s shows exactly %d mails: Gmail's setting \"Limit IMAP folders\" may hide older ones (Settings, Forwarding and POP/IMAP, Folder size limits)", daemon.Printable(r.Name), r.Mails)}
	case yahoo.MatchString(host):
		return []string{fmt.Sprintf("%s shows exactly %d mails: this provider shows the newest only, and older ones when these are gone", daemon.Printable(r.Name), r.Mails)}
	default:
		return []string{fmt.Sprintf("%s shows exactly %d mails: the provider may hide older ones", daemon.Printable(r.Name), r.Mails)}
	}
}

// total counts what would be fetched.
func (r *Report) total() int {
	n := 0
	for _, f := range r.Folders {
		n += f.ToFetch
	}
	return n
}

// worstFirst orders reports for the table: those with a problem last, where a person looks first.
func worstFirst(a, b Report) int {
	weight := func(r Report) int {
		if r.Problem != nil {
			return 1
		}
		return 0
	}
	return cmp.Compare(weight(a), weight(b))
}
