package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spamtraps.internal/libs/secret"
)

// provider is a token endpoint that remembers what it was asked.
type provider struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []url.Values
	answer http.HandlerFunc
}

func newProvider(t *testing.T, answer http.HandlerFunc) *provider {
	t.Helper()
	p := &provider{answer: answer}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		p.asked = append(p.asked, r.PostForm)
		answer := p.answer
		p.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *provider) say(answer http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *provider) requests() []url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// gives answers with a token.
func gives(access string, more map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		answer := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 3600}
		maps.Copy(answer, more)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}
}

func fails(status int, code, description string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description})
	}
}

// clock is a time that a test moves on.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

func settled(t *testing.T, settings OAuth) OAuth {
	t.Helper()
	settings.Validate(func(name, problem string) { t.Errorf("%s %s", name, problem) })
	return settings
}

func everything(string) bool { return true }

func only(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

func shownToken(t *testing.T, login Login) string {
	t.Helper()
	m, err := login.Mechanism(t.Context(), only(XOAuth2))
	if err != nil {
		t.Fatal(err)
	}
	_, ir, err := m.SASL.Start()
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(ir), "auth=Bearer ")
	return strings.TrimSuffix(after, "\x01\x01")
}

func TestPassword(t *testing.T) {
	login := NewPassword("anna@trap.example", secret.New("grüße"))
	m, err := login.Mechanism(t.Context(), everything)
	if err != nil || m.Name != Plain || m.Refused == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	name, ir, err := m.SASL.Start()
	if err != nil || name != "PLAIN" || string(ir) != "\x00anna@trap.example\x00grüße" {
		t.Errorf("PLAIN says %q, %v", ir, err)
	}
	m, err = login.Mechanism(t.Context(), only(CommandLogin))
	if err != nil || m.Name != CommandLogin || m.SASL != nil || m.Username != "anna@trap.example" || m.Password != "grüße" {
		t.Errorf("LOGIN: %+v, %v", m, err)
	}
	for _, row := range []struct {
		name        string
		login       Login
		offered     func(string) bool
		want        string
		credentials bool
	}{
		{"nothing offered", login, only(), "the server offers no login with a password on this connection", true},
		{"only tokens", login, only(XOAuth2), "the server takes no password, but OAuth 2.0: see docs/oauth.md", true},
		{"line end", NewPassword("a", secret.New("hunter2\r\nA1 DELETE INBOX")), everything, "the password has a NUL byte or a line end in it, which IMAP cannot carry", true},
		{"file missing", NewPassword("a", secret.FromFile("/nonexistent")), everything, "read secret: open /nonexistent: no such file or directory", false},
	} {
		_, err := row.login.Mechanism(t.Context(), row.offered)
		if err == nil || err.Error() != row.want || IsCredentials(err) != row.credentials {
			t.Errorf("%s: %v, credentials %v", row.name, err, IsCredentials(err))
		}
	}
}

// A password in a file is read at each try, so that a new one counts without a restart.
func TestPasswordFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	login := NewPassword("a", secret.FromFile(path))
	for _, password := range []string{"first", "second"} {
		write(t, path, password+"\n")
		m, err := login.Mechanism(t.Context(), only(CommandLogin))
		if err != nil || m.Password != password {
			t.Errorf("%q, %v", m.Password, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMechanismOfTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write(t, path, "ya29.secret-token\n")
	box := Mailbox{ID: "1", Name: "one", Username: "a=b,c@trap.example", Host: "imap.example", Port: 993}
	login := NewTokens("").Login(box, OAuth{TokenFile: path})
	for _, row := range []struct {
		login   Login
		offered func(string) bool
		name    string
		ir      string
	}{
		{login, only(XOAuth2, Plain), XOAuth2, "user=a=b,c@trap.example\x01auth=Bearer ya29.secret-token\x01\x01"},
		{login, everything, OAuthBearer, "n,a=a=3Db=2Cc@trap.example,\x01host=imap.example\x01port=993\x01auth=Bearer ya29.secret-token\x01\x01"},
		{
			NewTokens("").Login(box, OAuth{TokenFile: path, Mechanism: XOAuth2}), everything, XOAuth2,
			"user=a=b,c@trap.example\x01auth=Bearer ya29.secret-token\x01\x01",
		},
	} {
		m, err := row.login.Mechanism(t.Context(), row.offered)
		if err != nil || m.Name != row.name {
			t.Fatalf("%+v, %v", m, err)
		}
		name, ir, err := m.SASL.Start()
		if err != nil || name != row.name || string(ir) != row.ir {
			t.Errorf("%s says %q, %v", name, ir, err)
		}
	}
	_, err := login.Mechanism(t.Context(), only(Plain, CommandLogin))
	if !IsCredentials(err) || err.Error() != "the server does not offer OAUTHBEARER or XOAUTH2: it takes no token on this connection" {
		t.Errorf("%v", err)
	}
}

func TestRefusedTokenSaysNothingOfIt(t *testing.T) {
	for challenge, want := range map[string]string{
		`{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}`: "XOAUTH2: the server refused the token with status 401",
		`{"status":"invalid_token"}`:            "XOAUTH2: the server refused the token with status invalid_token",
		`{"status":"Bearer ya29.secret-token"}`: "XOAUTH2: the server refused the token",
		`ya29.secret-token`:                     "XOAUTH2: the server refused the token",
		``:                                      "XOAUTH2: the server refused the token",
	} {
		answer, err := (&xoauth2{"a", "ya29.secret-token"}).Next([]byte(challenge))
		if answer != nil || !IsCredentials(err) || err.Error() != want {
			t.Errorf("%q: %q, %v", challenge, answer, err)
		}
	}
}

func TestTokenFileAndCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	file := func(text string) Login {
		write(t, path, text)
		return NewTokens("").Login(Mailbox{Username: "a"}, OAuth{TokenFile: path})
	}
	command := func(line string) Login {
		return NewTokens("").Login(Mailbox{Username: "a"}, OAuth{TokenCommand: line})
	}
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	if got := shownToken(t, file(" abc \n")); got != "abc" {
		t.Errorf("%q", got)
	}
	if got := shownToken(t, file(`{"access_token": "json", "expiry": "`+future+`", "refresh_token": "x"}`)); got != "json" {
		t.Errorf("%q", got)
	}
	if got := shownToken(t, command("echo from; ")); got != "from" {
		t.Errorf("%q", got)
	}
	for name, row := range map[string]struct {
		login Login
		want  string
	}{
		"ended":           {file(`{"access_token": "hunter2", "expiry": "2020-01-01T00:00:00Z"}`), "read token: that in " + path + " ended at 2020-01-01T00:00:00Z: is the program that renews it running?"},
		"command fails":   {command("echo hunter2; echo hunter2 >&2; exit 3"), "run token_command: exit status 3: run it by hand to see why"},
		"prints nothing":  {command("true"), "run token_command: what it printed is empty"},
		"prints a lot":    {command("yes hunter2"), "run token_command: it printed more than 65536 bytes"},
		"never ends":      {command("sleep 60 & sleep 60"), "run token_command: it took longer than 30s, or we were told to stop"},
		"two lines":       {command("echo hunter2; echo hunter2"), "run token_command: what it printed is no token: it has a character that no token has"},
		"prints bad JSON": {command(`echo '{"access_token": hunter2'`), "run token_command: what it printed is neither a token nor JSON with access_token and expiry (RFC 3339)"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := row.login.Mechanism(ctx, everything)
		cancel()
		if err == nil || (row.want != "" && err.Error() != row.want) || IsCredentials(err) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestApplicationAccessIsSharedAndRenewed(t *testing.T) {
	var clock clock
	number := 0
	p := newProvider(t, func(w http.ResponseWriter, r *http.Request) {
		number++
		gives(fmt.Sprintf("token-%d", number), nil)(w, r)
	})
	tokens := NewTokens("")
	tokens.now = clock.now
	settings := settled(t, OAuth{Grant: grantClient, ClientID: "app", ClientSecret: secret.New("hunter2"), TokenURL: p.URL, Scopes: []string{"imap"}})
	one := tokens.Login(Mailbox{ID: "1", Username: "a"}, settings)
	two := tokens.Login(Mailbox{ID: "2", Username: "b"}, settings)
	first := shownToken(t, one)
	if got := shownToken(t, two); got != first || len(p.requests()) != 1 {
		t.Errorf("tokens %q and %q in %d requests", first, got, len(p.requests()))
	}
	request := p.requests()[0]
	if request.Get("grant_type") != "client_credentials" || request.Get("scope") != "imap" {
		t.Errorf("the request is %v", request)
	}
	clock.advance(49 * time.Minute)
	if got := shownToken(t, one); got != first {
		t.Errorf("renewed after 49 min of 60: %q", got)
	}
	clock.advance(2 * time.Minute)
	second := shownToken(t, one)
	if second == first {
		t.Error("not renewed 9 min before its end")
	}
	// A server's refusal makes the next try get another one, but not twice for the same.
	m, err := one.Mechanism(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	stale, err := two.Mechanism(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	m.Refused()
	third := shownToken(t, one)
	stale.Refused()
	if fourth := shownToken(t, two); third == second || fourth != third {
		t.Errorf("after refusals: %q, %q, %q", second, third, fourth)
	}
}

func refreshing(t *testing.T, p *provider, stateDir string, token secret.Secret) Login {
	t.Helper()
	tokens := NewTokens(stateDir)
	return tokens.Login(Mailbox{ID: "1", Name: "one", Username: "a"},
		settled(t, OAuth{Provider: "other", ClientID: "app", RefreshToken: token, TokenURL: p.URL, Scopes: []string{"imap", "offline"}}))
}

// A provider that gives another refresh token takes the one before away: what it gave is on the disk before anything is done with the
// access token, in the file it came from, or in the folder of the state when that cannot be written.
func TestRotatedRefreshTokenIsWrittenBack(t *testing.T) {
	for _, row := range []struct {
		name     string
		writable bool
		literal  bool
	}{{"own file", true, false}, {"file that cannot be written", false, false}, {"no file", false, true}} {
		t.Run(row.name, func(t *testing.T) {
			stateDir := t.TempDir()
			path := filepath.Join(t.TempDir(), "mounted", "refresh")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, path, "r-0\n")
			if err := os.Chmod(path, 0o640); err != nil {
				t.Fatal(err)
			}
			token := secret.FromFile(path)
			if row.literal {
				token = secret.New("r-0")
			}
			if !row.writable {
				block(t, path+".new")
			}
			number := 0
			p := newProvider(t, func(w http.ResponseWriter, r *http.Request) {
				if got, want := r.PostForm.Get("refresh_token"), fmt.Sprintf("r-%d", number); got != want {
					t.Errorf("used %q, want %q", got, want)
				}
				number++
				gives(fmt.Sprintf("token-%d", number), map[string]any{"refresh_token": fmt.Sprintf("r-%d", number)})(w, r)
			})
			for range 3 { // processes
				login := refreshing(t, p, stateDir, token)
				for range 2 {
					m, err := login.Mechanism(t.Context(), everything)
					if err != nil {
						t.Fatal(err)
					}
					m.Refused()
				}
			}
			if number != 6 {
				t.Errorf("%d requests", number)
			}
			if scope := p.requests()[0].Get("scope"); scope != "imap offline" {
				t.Errorf("scope %q", scope)
			}
			states, _ := filepath.Glob(filepath.Join(stateDir, "*"))
			if row.writable {
				info, err := os.Stat(path)
				if err != nil || read(t, path) != "r-6\n" || info.Mode().Perm() != 0o640 || len(states) != 0 {
					t.Errorf("the file holds %q, %v; the state %q", read(t, path), info.Mode(), states)
				}
				return
			}
			if read(t, path) != "r-0\n" || len(states) != 1 {
				t.Fatalf("the file holds %q; the state %q", read(t, path), states)
			}
			info, err := os.Stat(states[0])
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the state: %v, %v", info.Mode(), err)
			}
			// Whoever configures another token means that one.
			if row.literal {
				token = secret.New("r-9")
			} else {
				write(t, path, "r-9\n")
			}
			number = 9
			login := refreshing(t, p, stateDir, token)
			if got := shownToken(t, login); got != "token-10" {
				t.Errorf("%q", got)
			}
		})
	}
}

// block makes it impossible to write a file, also for root: a folder with something in it has its name.
func block(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// A token that can be written nowhere is used as long as the process lives, is complained about, and is written as soon as that is possible.
func TestRefreshTokenThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refresh")
	write(t, path, "r-0")
	block(t, path+".new")
	p := newProvider(t, gives("token", map[string]any{"refresh_token": "r-1"}))
	login := refreshing(t, p, "", secret.FromFile(path))
	source := login.(*bearerLogin).tokens.(*endpoint)
	var problems []string
	source.tell = func(problem string, err error) { problems = append(problems, problem+": "+err.Error()) }
	for range 2 {
		m, err := login.Mechanism(t.Context(), everything)
		if err != nil {
			t.Fatal(err)
		}
		m.Refused()
	}
	if len(problems) != 2 || !strings.Contains(problems[0], "is lost when this program ends") || !strings.Contains(problems[0], "no IMAP_STATE") {
		t.Errorf("problems: %q", problems)
	}
	if strings.Contains(strings.Join(problems, ""), "r-1") {
		t.Error("a problem shows the token")
	}
	if used := p.requests()[1].Get("refresh_token"); used != "r-1" {
		t.Errorf("used %q", used)
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	if _, err := login.Mechanism(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "r-1\n" || len(problems) != 2 {
		t.Errorf("the file holds %q, problems %q", got, problems)
	}
}

func TestDamagedStateOfRefreshToken(t *testing.T) {
	for text, want := range map[string]string{
		"{":                                   "is not what was written: remove it to begin with the configured token",
		`{"version": 2, "x": "r-5"}`:          "is of version 2, which this program does not know",
		`{"version": 1, "refresh_token": ""}`: "holds no token: remove it to begin with the configured one",
	} {
		dir := t.TempDir()
		p := newProvider(t, gives("token", map[string]any{"refresh_token": "r-1"}))
		login := refreshing(t, p, dir, secret.New("r-0"))
		path := login.(*bearerLogin).tokens.(*endpoint).keeper.path
		write(t, path, text)
		_, err := login.Mechanism(t.Context(), everything)
		if err == nil || !strings.Contains(err.Error(), want) || IsCredentials(err) {
			t.Errorf("%s: %v", text, err)
		}
		if got := read(t, path); got != text {
			t.Errorf("%s was written over", text)
		}
	}
}

func TestLasts(t *testing.T) {
	p := newProvider(t, gives("token", map[string]any{"refresh_token": "r-1", "refresh_token_expires_in": 7 * 86400}))
	login := refreshing(t, p, t.TempDir(), secret.New("r-0"))
	if _, err := login.Mechanism(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	lasts := login.(interface{ Lasts() Lasts }).Lasts()
	if age, left := time.Since(lasts.Since), time.Until(lasts.Until); age < 0 || age > time.Minute || left < 6*24*time.Hour || left > 7*24*time.Hour {
		t.Errorf("lasts %v", lasts)
	}
	if until := unusedLife(microsoft, lasts.Since); until.Sub(lasts.Since) < 89*24*time.Hour {
		t.Errorf("Microsoft's lasts until %v", until)
	}
}

// Whatever a token endpoint answers, an error says what it is about in time and within bounds, and shows no secret.
func TestHostileTokenEndpoint(t *testing.T) {
	const refresh, client = "r-hunter2", "c-hunter2+/="
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	elsewhere := newProvider(t, gives("stolen", nil))
	for _, row := range []struct {
		name        string
		answer      http.HandlerFunc
		want        string
		credentials bool
	}{
		{"revoked", fails(400, "invalid_grant", "AADSTS700082: The refresh token has expired due to inactivity.\r\nTrace ID: 123"), "it said invalid_grant: AADSTS700082: The refresh token has expired due to inactivity.", true},
		{"wrong secret", fails(401, "invalid_client", "bad secret "+client+" and "+url.QueryEscape(client)+" with "+refresh), "it said invalid_client: bad secret *** and *** with ***", true},
		{"code is the secret", fails(400, refresh, ""), "it said ***", true},
		{"busy", fails(503, "temporarily_unavailable", ""), "it said temporarily_unavailable", false},
		{"too many", fails(429, "invalid_request", ""), "it said invalid_request", false},
		{"error with 200", fails(200, "invalid_grant", ""), "it said invalid_grant", true},
		{"an endless description", fails(400, "invalid_grant", strings.Repeat("x", 100_000)), "it said invalid_grant: " + strings.Repeat("x", 300) + "…", true},
		{"no OAuth error", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, refresh)
		}, "it answered HTTP 403", false},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "\x00\xff{"+refresh) }, "its answer is no token", false},
		{"empty", func(http.ResponseWriter, *http.Request) {}, "its answer is no token", false},
		{"a login page", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>"+refresh+"</html>") }, "its answer is no token", false},
		{"huge", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"access_token":"%s"}`, strings.Repeat("x", 4<<20))
		}, "its answer is no token", false},
		{"large token", gives(strings.Repeat("x", 100_000), nil), "what it gave is larger than 65536 bytes", false},
		{"token that breaks out", gives("x\x01\x01\r\nA2 LOGOUT", nil), "what it gave is no token: it has a character that no token has", false},
		{"silent", func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, "it took longer than 300ms", false},
		{"drip", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for r.Context().Err() == nil {
				fmt.Fprint(w, " ")
				w.(http.Flusher).Flush()
				select {
				case <-time.After(10 * time.Millisecond):
				case <-hang:
					return
				}
			}
		}, "it took longer than 300ms", false},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, "it answered HTTP 307", false},
		{"cut", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, "EOF", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := newProvider(t, row.answer)
			tokens := NewTokens(t.TempDir())
			login := tokens.Login(Mailbox{ID: "1", Username: "a"}, settled(t, OAuth{
				Provider: google, ClientID: "app", ClientSecret: secret.New(client), RefreshToken: secret.New(refresh), TokenURL: p.URL,
			}))
			if strings.Contains(row.want, "300ms") {
				login.(*bearerLogin).tokens.(*endpoint).timeout = 300 * time.Millisecond
			}
			_, err := login.Mechanism(t.Context(), everything)
			host := strings.TrimPrefix(p.URL, "http://")
			if err == nil || err.Error() != "get a token from "+host+": "+row.want || IsCredentials(err) != row.credentials {
				t.Errorf("%v, credentials %v; want %s", err, IsCredentials(err), row.want)
			}
			if typed := (*Error)(nil); !errors.As(err, &typed) {
				t.Errorf("%T is no *Error", err)
			}
			if len(p.requests()) > 1 {
				t.Errorf("asked %d times", len(p.requests()))
			}
		})
	}
	if len(elsewhere.requests()) > 0 {
		t.Error("followed a redirect with the secrets")
	}
}

// A failure answers for a while, so that hundreds of mailboxes that share a token do not ask hundreds of times.
func TestFailureIsRemembered(t *testing.T) {
	var clock clock
	p := newProvider(t, fails(500, "server_error", ""))
	tokens := NewTokens("")
	tokens.now = clock.now
	login := tokens.Login(Mailbox{ID: "1", Username: "a"}, settled(t, OAuth{Provider: microsoft, Tenant: "t", ClientID: "app", ClientSecret: secret.New("x"), TokenURL: p.URL}))
	for range 5 {
		if _, err := login.Mechanism(t.Context(), everything); err == nil || IsCredentials(err) {
			t.Fatal(err)
		}
	}
	if len(p.requests()) != 1 {
		t.Errorf("asked %d times", len(p.requests()))
	}
	p.say(gives("token", nil))
	clock.advance(failureLife)
	if got := shownToken(t, login); got != "token" {
		t.Errorf("%q", got)
	}
}

// Whoever gives up does not take a rotated refresh token with him.
func TestGivingUpLosesNoRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refresh")
	write(t, path, "r-0")
	asked, answer := make(chan struct{}), make(chan struct{})
	p := newProvider(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-answer
		gives("token", map[string]any{"refresh_token": "r-1"})(w, r)
	})
	login := refreshing(t, p, "", secret.FromFile(path))
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := login.Mechanism(ctx, everything)
		failed <- err
	}()
	<-asked
	cancel()
	if err := <-failed; err == nil || IsCredentials(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(answer)
	if got := shownToken(t, login); got != "token" || len(p.requests()) != 1 {
		t.Errorf("%q in %d requests", got, len(p.requests()))
	}
	if got := read(t, path); got != "r-1\n" {
		t.Errorf("the file holds %q", got)
	}
}

func TestValidate(t *testing.T) {
	s := secret.New("x")
	for _, row := range []struct {
		name string
		o    OAuth
		want []string
	}{
		{"nothing", OAuth{}, nil},
		{"google", OAuth{Provider: google, ClientID: "a", RefreshToken: s}, nil},
		{"microsoft", OAuth{Provider: microsoft, ClientID: "a", ClientSecret: s, Tenant: "t"}, nil},
		{"file", OAuth{TokenFile: "x"}, nil},
		{"too little", OAuth{Mechanism: XOAuth2}, []string{"CLIENT_ID", "REFRESH_TOKEN", "TOKEN_URL"}},
		{"google without a token", OAuth{Provider: google, ClientID: "a"}, []string{"REFRESH_TOKEN"}},
		{"google application", OAuth{Provider: google, Grant: grantClient, ClientID: "a", ClientSecret: s}, []string{"GRANT"}},
		{"microsoft without tenant", OAuth{Provider: microsoft, ClientID: "a", ClientSecret: s}, []string{"TENANT"}},
		{"microsoft without secret", OAuth{Provider: microsoft, ClientID: "a", Tenant: "t"}, []string{"CLIENT_SECRET"}},
		{"two ways", OAuth{TokenFile: "x", TokenCommand: "y"}, []string{"TOKEN_COMMAND"}},
		{"file and more", OAuth{TokenFile: "x", ClientID: "a"}, []string{"CLIENT_ID"}},
		{"plain http", OAuth{TokenURL: "http://login.example/", ClientID: "a", RefreshToken: s}, []string{"TOKEN_URL"}},
		{"no URL", OAuth{TokenURL: "login", ClientID: "a", RefreshToken: s}, []string{"TOKEN_URL"}},
		{"password in the URL", OAuth{TokenURL: "https://a:b@login.example/", ClientID: "a", RefreshToken: s}, []string{"TOKEN_URL"}},
		{"tenant of another", OAuth{Provider: google, Tenant: "x", ClientID: "a", RefreshToken: s}, []string{"TENANT"}},
		{"application with a refresh token", OAuth{Provider: "other", TokenURL: "https://x.example", Grant: grantClient, ClientID: "a", ClientSecret: s, RefreshToken: s}, []string{"REFRESH_TOKEN"}},
	} {
		var got []string
		row.o.Validate(func(name, _ string) { got = append(got, name) })
		slices.Sort(got)
		if strings.Join(got, " ") != strings.Join(row.want, " ") {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	o := OAuth{Provider: microsoft, Tenant: "a b/c", ClientID: "a", ClientSecret: s}
	o.Validate(func(name, problem string) { t.Error(name, problem) })
	if o.TokenURL != "https://login.microsoftonline.com/a%20b%2Fc/oauth2/v2.0/token" || o.Scopes[0] != "https://outlook.office365.com/.default" {
		t.Errorf("settled to %q, %q", o.TokenURL, o.Scopes)
	}
}
