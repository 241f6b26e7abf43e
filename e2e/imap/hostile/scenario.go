package hostile

import (
	"slices"
	"time"
)

// Scenario is a server that goes wrong in one way, and what a collector must make of it.
type Scenario struct {
	Script
	// About says in a sentence what the server does.
	About string
	// Setup fills the mailbox; without it INBOX holds mails 1 to 6.
	Setup func(s *Server)
	// Account is what the collector's mailboxes.yml says of the account beside its address and login: `after: delete`. Without a `tls` in
	// it the connection is plain.
	Account string
	Want    Want
}

// Want is what must come of a scenario, beside what must hold in all: what is published is byte for byte a mail of the server, and
// what is flagged, deleted or moved was published.
type Want struct {
	// Mails are the UIDs in INBOX that must be published and marked; nil stands for all that are there and unseen at the start.
	Mails []uint32
	// Nothing means that nothing must be published.
	Nothing bool
	// AtLeast is how many mails must be published, where there are too many to wait for.
	AtLeast int
	// MayAlso are UIDs in INBOX that may be published and need not be.
	MayAlso []uint32
	// Unmarked means that the server lets nobody mark mails: each is published and then remembered.
	Unmarked bool
	// Copies is how often one mail may be published at most; 0 stands for 1.
	Copies int
	// Faults is how often the fault must have struck (Nth "fault") before the outcome counts; 0 stands for 1, and -1 for none.
	Faults int
	// Logins is how many logins there may be at most, in as many seconds as the other scenarios take; 0 stands for any number, -1 for none.
	Logins int
	// Apart is how far apart logins, and FETCHes of bodies, must be at least.
	Apart time.Duration
	// Fetches is how many FETCHes of bodies there may be at most; 0 stands for any number.
	Fetches int
	// Log is a part of what must be logged about the mailbox.
	Log string
	// Silent tells that the server is silent, or nearly so, until the collector has had enough of it (IMAP_TIMEOUT).
	Silent bool
	// Check looks at what else matters, when everything else has been found good.
	Check func(s *Server) error
}

// Scenarios are all there are, by name.
func Scenarios() map[string]Scenario {
	return map[string]Scenario{
		"literal-cut":             literalCut(),
		"literal-cut-at-end":      literalCutAtEnd(),
		"greet-bye":               greetBye(),
		"bye":                     byeScenario(),
		"bye-mid":                 byeMid(),
		"login-bye":               loginBye(),
		"idle-drop":               idleDrop(),
		"close-after-select":      closeAfterSelect(),
		"store-drop":              storeDrop(),
		"store-done-drop":         storeDoneDrop(),
		"uidvalidity-flip":        uidvalidityFlip(),
		"uidvalidity-selected":    uidvaliditySelected(),
		"huge-mailbox":            hugeMailbox(),
		"huge-mailbox-plain":      hugeMailboxPlain(),
		"search-giant":            searchGiant(),
		"search-flood":            searchFlood(),
		"search-to-the-end":       searchToTheEnd(),
		"search-lies":             searchLies(),
		"search-no":               searchNo(),
		"uids-743m":               uids743m(),
		"expunge-mid":             expungeMid(),
		"partial-ok":              partialOk(),
		"partial-ok-for-ever":     partialOkForEver(),
		"nil-body":                nilBody(),
		"nil-for-ever":            nilForEver(),
		"empty-body":              emptyBody(),
		"no":                      noScenario(),
		"bad":                     badScenario(),
		"partial-no":              partialNo(),
		"no-for-one":              noForOne(),
		"throttle":                throttleScenario(),
		"limit":                   limitScenario(),
		"interleaved":             interleaved(),
		"login-limit":             loginLimit(),
		"messagelimit":            messagelimit(),
		"readonly":                readonly(),
		"store-no":                storeNo(),
		"store-forgotten":         storeForgotten(),
		"expunge-no":              expungeNo(),
		"no-uidplus":              noUidplus(),
		"delete":                  deleteScenario(),
		"move":                    moveScenario(),
		"no-move":                 noMove(),
		"copy-no":                 copyNo(),
		"move-no":                 moveNo(),
		"literal-low":             literalLow(),
		"literal-low-looks-right": literalLowLooksRight(),
		"literal-high":            literalHigh(),
		"literal-high-last":       literalHighLast(),
		"literal-negative":        literalNegative(),
		"literal-giant":           literalGiant(),
		"literal-200mb":           literal200mb(),
		"literal-8":               literal8(),
		"list-literal":            listLiteral(),
		"list-flood":              listFlood(),
		"list-odd":                listOdd(),
		"line-infinite":           lineInfinite(),
		"fetch-flood":             fetchFlood(),
		"exists-flood":            existsFlood(),
		"capability-flood":        capabilityFlood(),
		"garbage":                 garbage(),
		"http":                    http(),
		"unknown-tag":             unknownTag(),
		"cont-req":                contReq(),
		"untagged-odd":            untaggedOdd(),
		"flags-odd":               flagsOdd(),
		"date-odd":                dateOdd(),
		"no-greeting":             noGreeting(),
		"blackhole":               blackhole(),
		"blackhole-literal":       blackholeLiteral(),
		"blackhole-login":         blackholeLogin(),
		"drip":                    drip(),
		"idle-silent":             idleSilent(),
		"idle-deaf":               idleDeaf(),
		"idle-no":                 idleNo(),
		"no-idle":                 noIdle(),
		"slow":                    slow(),
		"login-fail":              loginFail(),
		"login-fail-repeats":      loginFailRepeats(),
		"login-lock":              loginLock(),
		"login-unavail":           loginUnavail(),
		"logindisabled":           logindisabled(),
		"starttls-strip":          starttlsStrip(),
		"starttls-no":             starttlsNo(),
		"starttls-inject":         starttlsInject(),
		"starttls-hang":           starttlsHang(),
		"preauth":                 preauth(),
		"uid-last":                uidLast(),
		"uid-missing":             uidMissing(),
		"uid-wrong":               uidWrong(),
		"dup-fetch":               dupFetch(),
		"dup-fetch-differs":       dupFetchDiffers(),
		"stolen":                  stolen(),
		"backwards":               backwards(),
		"size-wrong":              sizeWrong(),
		"oversize":                oversize(),
		"oversize-hidden":         oversizeHidden(),
		"id-first":                idFirst(),
		"id-no":                   idNo(),
		"no-junk":                 noJunk(),
		"select-no":               selectNo(),
		"exists-lies":             existsLies(),
	}
}

// fault counts a fault that strikes now, and tells whether it is among the first few.
func (s *Server) fault(few int) bool {
	if s.Times("fault") >= few {
		return false
	}
	return s.Nth("fault") <= few
}

// always counts a fault that strikes each time.
func (s *Server) always() bool { return s.Nth("fault") > 0 }

// begin announces the body of a mail, with a size of its own.
func (s *Session) begin(c *Command, m Mail, size string) {
	s.Send("* %d FETCH (%s BODY[] {%s}\r\n", m.Seq, s.Items(c, m), size)
}

// is tells whether a command is one of those named.
func (c *Command) is(names ...string) bool {
	return slices.Contains(names, c.Name)
}
