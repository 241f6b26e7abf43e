package collector

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/session"
)

const (
	// longestIdle is how long one IDLE lasts: servers may end it after half an hour (RFC 2177 §3), some do sooner.
	longestIdle = 25 * time.Minute
	// onceTries is how often Once tries a mailbox in which nothing moves.
	onceTries = 4
)

// mailbox is one account, with a goroutine that works on it. What others may look at is behind the mutex.
type mailbox struct {
	account account.Account
	shared  *shared
	host    *host
	log     zerolog.Logger
	metrics mailboxMetrics
	pauses  pauses

	folders map[string]*folder
	chosen  []*folder
	target  string // the folder that mails are moved to
	trash   string // the folder that mails are deleted by moving to, "" where deleting deletes
	skipID  bool   // the server's answer to ID makes no sense
	moved   bool   // the last connection has moved things on
	said    map[string]bool

	mu       sync.Mutex
	status   Status
	began    time.Time
	lastLook time.Time
	lastMail time.Time
	problem  string // why the last look was none
}

func (c *Collector) newMailbox(a account.Account) *mailbox {
	return &mailbox{
		account: a, shared: c.shared, host: c.shared.hosts.of(&a), folders: make(map[string]*folder), said: make(map[string]bool),
		log: c.shared.log.With().Str("mailbox", a.Name).Logger(), metrics: c.shared.families.of(a.Name),
		pauses: pauses{jitter: c.shared.jitter}, status: Status{Result: Result{Name: a.Name}, Doing: DoingNothing}, began: time.Now(),
	}
}

// run works on the mailbox until soft ends.
func (m *mailbox) run(soft, hard context.Context) {
	m.warn()
	for soft.Err() == nil {
		due := time.Now().Add(m.poll())
		err := m.connect(soft, hard, true)
		m.doing(DoingNothing)
		switch {
		case soft.Err() != nil:
			return
		case err == nil: // somebody else wanted the connection
			sleep(soft, time.Until(due))
		default:
			sleep(soft, m.failed(err))
		}
	}
}

// poll is how long a folder goes unlooked at, with some chance, so that mailboxes do not all come at once.
func (m *mailbox) poll() time.Duration {
	const spread = 10
	return m.account.PollInterval - m.shared.jitter(m.account.PollInterval/spread)
}

// failed notes a failure, and returns how long to leave the mailbox alone.
func (m *mailbox) failed(err error) time.Duration {
	if m.moved {
		m.pauses.reset()
	}
	kind := session.KindOf(err)
	pause := m.pauses.next(kind)
	m.metrics.failures.WithLabelValues(m.account.Name, string(kind)).Inc()
	m.mu.Lock()
	m.problem = err.Error()
	m.mu.Unlock()
	m.log.Warn().Err(err).Str("kind", string(kind)).Dur("retry_in", pause).Msg("mailbox failed")
	return pause
}

// once goes through the mailbox, and tries again what may pass.
func (m *mailbox) once(soft, hard context.Context) {
	m.warn()
	m.mu.Lock()
	m.began = time.Now()
	m.mu.Unlock()
	err := m.tries(soft, hard)
	if soft.Err() != nil {
		err = context.Cause(soft)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Err, m.status.Took, m.status.Doing = err, time.Since(m.began), DoingDone
	if err != nil {
		m.status.Doing = DoingFailed
	}
}

func (m *mailbox) tries(soft, hard context.Context) error {
	for tries := 1; ; tries++ {
		err := m.connect(soft, hard, false)
		if err == nil || soft.Err() != nil {
			return err
		}
		if m.moved {
			tries = 1
		}
		e, _ := errors.AsType[*session.Error](err)
		final := e != nil && (e.Kind == session.Credentials || e.Kind == session.TLS || e.Answered && e.Kind != session.Throttled)
		pause := m.failed(err)
		if final || tries == onceTries {
			return err
		}
		m.doing(DoingNothing)
		sleep(soft, pause)
	}
}

// warn says once what is not as safe as it could be.
func (m *mailbox) warn() {
	switch {
	case m.account.TLS == account.TLSNone:
		m.log.Warn().Msg("the connection is not encrypted (tls: none): password and mail can be read on the way")
	case !m.account.CheckCert:
		m.log.Warn().Msg("the server's certificate is not verified (check_cert)")
	}
}

// connect opens a session and works on it. It returns nil when that was to be left, or all is done.
func (m *mailbox) connect(soft, hard context.Context, continuous bool) (err error) {
	m.moved = false
	if err := m.shared.gate.await(soft); err != nil {
		return err
	}
	if err := m.host.enter(soft); err != nil {
		return err
	}
	defer m.host.leave()
	m.doing(DoingConnecting)
	ctx, cancel := context.WithCancel(hard)
	defer cancel()
	impatient := context.AfterFunc(soft, cancel) // there is nothing to finish yet
	s, err := m.shared.dialer.Open(ctx, &m.account, m.skipID)
	if err != nil {
		if e, ok := errors.AsType[*session.Error](err); ok && e.Doing == "ID" {
			m.skipID = true
		}
		return err
	}
	impatient()
	defer func() {
		if err == nil {
			s.Logout()
		} else {
			s.Close()
		}
	}()
	m.metrics.setConnected(1)
	defer m.metrics.setConnected(0)
	m.log.Debug().Str("mechanism", s.Mechanism()).Msg("logged in")
	if alert := s.Alert(); alert != "" && m.first(alert) {
		m.log.Warn().Str("alert", alert).Msg("the server wants people to read this")
	}
	return m.serve(soft, hard, s, continuous)
}

func (m *mailbox) first(what string) bool {
	const most = 100
	if m.said[what] || len(m.said) > most {
		return false
	}
	m.said[what] = true
	return true
}

// serve looks at all folders, and then, if that is wanted, waits for news and looks again.
func (m *mailbox) serve(soft, hard context.Context, s *session.Session, continuous bool) error {
	if err := m.choose(s); err != nil {
		return err
	}
	for soft.Err() == nil {
		due := time.Now().Add(m.poll())
		if err := m.lookAll(soft, hard, s); err != nil {
			return err
		}
		if !continuous || soft.Err() != nil {
			return nil //nolint:nilerr // told to stop
		}
		if leave, err := m.await(soft, hard, s, due); leave || err != nil {
			return err
		}
	}
	return nil
}

// choose finds the folders that are meant.
func (m *mailbox) choose(s *session.Session) error {
	all, err := s.Folders()
	if err != nil {
		return err
	}
	chosen, missing := session.Choose(all, m.account.Folders)
	for _, name := range missing {
		if m.first("missing " + name) {
			m.log.Info().Str("folder", name).Msg("the mailbox has no such folder")
		}
	}
	if len(chosen) == 0 {
		return &session.Error{Kind: session.Refused, Doing: "choose folders", Answered: true, Err: errors.New("the mailbox has none of " + strings.Join(missing, ", "))}
	}
	m.chosen = nil
	for _, c := range chosen {
		f := m.folders[c.Name]
		if f == nil {
			f = &folder{name: c.Name}
			m.folders[c.Name] = f
		}
		f.junk, f.askedAgain = c.Junk, false
		m.chosen = append(m.chosen, f)
	}
	return m.destinations(s, all)
}

// destinations finds the folders that mails are moved to.
func (m *mailbox) destinations(s *session.Session, all []session.Folder) error {
	m.trash, m.target = "", m.account.After.Folder
	if strings.HasPrefix(m.target, `\`) {
		name, err := session.BySpecialUse(all, m.target)
		if err != nil {
			return &session.Error{Kind: session.Refused, Doing: "find the folder to move mails to", Answered: true, Err: err}
		}
		m.target = name
	}
	if m.account.After.Kind != account.AfterDelete || !s.DeletingArchives() {
		return nil
	}
	trash, err := session.BySpecialUse(all, `\Trash`)
	if err != nil {
		if m.first("trash") {
			m.log.Warn().Msg("this provider keeps what is deleted unless it is moved to the trash, and the mailbox has none that is shown by IMAP")
		}
		return nil
	}
	m.trash = trash
	return nil
}

// after returns what is to be done with the mails of a folder. What is to be moved to where it is already is done with when it is marked.
func (m *mailbox) after(folder string) account.After {
	a := m.account.After
	if a.Kind != account.AfterMove {
		return a
	}
	if m.target == folder {
		return account.After{Kind: account.AfterSeen}
	}
	return account.After{Kind: a.Kind, Folder: m.target}
}

// lookAll goes through all folders, the one that will be waited on last. A folder that the server refuses does not keep us from the others.
func (m *mailbox) lookAll(soft, hard context.Context, s *session.Session) error {
	var refused error
	for _, f := range slices.Backward(m.chosen) {
		err := m.look(soft, hard, s, f)
		if e, ok := errors.AsType[*session.Error](err); ok && e.Answered && e.Kind != session.Throttled {
			if m.first("refused " + f.name) {
				m.log.Warn().Err(err).Str("folder", f.name).Msg("folder failed")
			}
			refused = err
			continue
		}
		if err != nil {
			return err
		}
		if soft.Err() != nil {
			return nil
		}
	}
	if refused != nil {
		m.mu.Lock()
		m.problem = refused.Error()
		m.mu.Unlock()
		return m.partly(refused)
	}
	m.looked()
	return nil
}

// partly decides what a look is worth that left folders out: the end of a run that goes through once, or of one that got nowhere.
func (m *mailbox) partly(refused error) error {
	if m.shared.once {
		return refused
	}
	for _, f := range m.chosen {
		if f.validity != 0 {
			return nil
		}
	}
	return refused
}

// looked notes that all folders were looked at.
func (m *mailbox) looked() {
	now := time.Now()
	m.mu.Lock()
	recovered := m.problem != ""
	m.lastLook, m.problem = now, ""
	m.mu.Unlock()
	m.pauses.reset()
	m.metrics.lastLook.Set(float64(now.UnixMilli()) / 1000)
	if recovered {
		m.log.Info().Msg("mailbox works again")
	}
}

// look goes through one folder, until there is nothing new in it.
func (m *mailbox) look(soft, hard context.Context, s *session.Session, f *folder) error {
	m.doing(DoingFetching)
	sel, err := s.Select(f.name, m.account.After.Kind == account.AfterNothing)
	if err != nil {
		return err
	}
	if err := f.open(m, sel); err != nil {
		return err
	}
	return m.passes(soft, hard, s, f, sel, func() uint32 { return 1 })
}

// passes goes through the selected folder from a message on, again and again until there is nothing new.
func (m *mailbox) passes(soft, hard context.Context, s *session.Session, f *folder, sel session.Selected, from func() uint32) error {
	var trash []uint32
	var validity uint32
	for again := true; again; {
		p := m.newPass(soft, hard, s, f, sel, from())
		var err error
		again, err = p.run()
		m.moved = m.moved || p.moved
		if err != nil {
			return err
		}
		if validity != p.validity && p.validity != 0 {
			trash, validity = nil, p.validity
		}
		trash = append(trash, p.trash...)
	}
	if len(trash) == 0 {
		return nil
	}
	if err := m.emptyTrash(s, trash, validity); err != nil {
		return err
	}
	_, err := s.Select(f.name, false) // we come back to wait for news
	return err
}

// emptyTrash expunges what we have moved into the trash, and nothing else. When that fails the provider will do it in some weeks.
func (m *mailbox) emptyTrash(s *session.Session, uids []uint32, validity uint32) error {
	sel, err := s.Select(m.trash, false)
	if err != nil || sel.UIDValidity != validity || !s.CanExpunge() {
		return err
	}
	slices.Sort(uids)
	for chunk := range slices.Chunk(slices.Compact(uids), actMost) {
		store := s.StartStore(chunk, `\Deleted`)
		expunge := s.StartExpunge(chunk)
		if err := errors.Join(store.Wait(), expunge.Wait()); err != nil {
			return err
		}
	}
	return nil
}

// await waits for news until the next look is due, and looks at them. leave tells that somebody else wants the connection.
func (m *mailbox) await(soft, hard context.Context, s *session.Session, due time.Time) (leave bool, err error) {
	f := m.chosen[0]
	for {
		m.doing(DoingIdling)
		left := time.Until(due)
		if left <= 0 {
			return false, nil
		}
		woken, err := s.AwaitNews(min(left, longestIdle), soft.Done(), m.host.wanted)
		if err != nil || soft.Err() != nil {
			return false, err
		}
		switch woken {
		case session.ByWish:
			return true, nil
		case session.ByNews:
			m.doing(DoingFetching)
			sel := s.Selected()
			if sel.Folder != f.name || sel.UIDValidity != f.validity {
				return false, nil // the folder could not be selected: look at all
			}
			if err := m.passes(soft, hard, s, f, sel, func() uint32 { return f.high - min(f.high, s.Expunged()-f.expunged) + 1 }); err != nil {
				return false, err
			}
		case session.ByTime:
		}
	}
}

func (m *mailbox) doing(what Doing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Doing = what
}

func (m *mailbox) count(change func(*Result)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.status.Result)
}

func (m *mailbox) foundMore(n int) {
	m.metrics.found.Add(float64(n))
	m.count(func(r *Result) { r.Found += n })
}

func (m *mailbox) show() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	status := m.status
	if status.Took == 0 && status.Doing != DoingNothing {
		status.Took = time.Since(m.began)
	}
	return status
}

// stale tells whether the last look was too long ago, and why.
func (m *mailbox) stale(now time.Time, after time.Duration) (why string, stale bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.lastLook
	if last.IsZero() {
		last = m.began
	}
	if now.Sub(last) <= after {
		return "", false
	}
	why = m.problem
	if why == "" {
		why = string(m.status.Doing)
	}
	return "not looked at for " + now.Sub(last).Round(time.Second).String() + ": " + why, true
}
