package auth

import (
	"fmt"
	"net"
	"net/url"
	"strings"

	"spamtraps.internal/libs/secret"
)

// OAuth is the map `oauth` of a mailbox: where its tokens come from. The zero value means that there is none; the tags are those of libs/daemon.
type OAuth struct {
	Provider     string        `env:"PROVIDER" oneof:"google microsoft other" desc:"Who gives the tokens; fills in token_url and scopes."`
	Grant        string        `env:"GRANT" oneof:"refresh_token client_credentials" desc:"How they are got."`
	ClientID     string        `env:"CLIENT_ID" desc:"Id of the application that is registered with the provider."`
	ClientSecret secret.Secret `env:"CLIENT_SECRET" desc:"Its secret, if it has one."`
	RefreshToken secret.Secret `env:"REFRESH_TOKEN" desc:"What access tokens are got with."`
	Tenant       string        `env:"TENANT" desc:"Directory of Microsoft 365, by its id or domain."`
	TokenURL     string        `env:"TOKEN_URL" desc:"The provider's token endpoint."`
	Scopes       []string      `env:"SCOPES" desc:"What the token shall allow."`
	TokenFile    string        `env:"TOKEN_FILE" desc:"File with an access token that another program renews."`
	TokenCommand string        `env:"TOKEN_COMMAND" desc:"Command line that prints an access token."`
	Mechanism    string        `env:"MECHANISM" oneof:"XOAUTH2 OAUTHBEARER" desc:"How it is shown to the server; one that the server offers."`
}

// The values of OAuth's fields.
const (
	google    = "google"
	microsoft = "microsoft"

	grantRefresh = "refresh_token"
	grantClient  = "client_credentials"
)

// IsSet tells whether there is any of it.
func (o *OAuth) IsSet() bool {
	return o.Provider != "" || o.Grant != "" || o.ClientID != "" || o.ClientSecret.IsSet() || o.RefreshToken.IsSet() || o.Tenant != "" ||
		o.TokenURL != "" || len(o.Scopes) > 0 || o.TokenFile != "" || o.TokenCommand != "" || o.Mechanism != ""
}

// Validate reports what does not fit together, and settles what follows from the rest.
func (o *OAuth) Validate(bad func(name, problem string)) {
	switch {
	case !o.IsSet():
	case o.TokenFile != "" || o.TokenCommand != "":
		o.validateForeign(bad)
	default:
		o.settle()
		o.validateEndpoint(bad)
	}
}

// validateForeign is for tokens that another program gets: then that program knows the rest.
func (o *OAuth) validateForeign(bad func(name, problem string)) {
	from := "token_file"
	if o.TokenCommand != "" {
		from = "token_command"
	}
	if o.TokenFile != "" && o.TokenCommand != "" {
		bad("TOKEN_COMMAND", "contradicts token_file: choose one")
	}
	for name, given := range map[string]bool{
		"GRANT": o.Grant != "", "CLIENT_ID": o.ClientID != "", "CLIENT_SECRET": o.ClientSecret.IsSet(), "REFRESH_TOKEN": o.RefreshToken.IsSet(),
		"TENANT": o.Tenant != "", "TOKEN_URL": o.TokenURL != "", "SCOPES": len(o.Scopes) > 0,
	} {
		if given {
			bad(name, fmt.Sprintf("contradicts %s, which gives the token itself: choose one", from))
		}
	}
}

// settle fills in what is known of the two large providers.
func (o *OAuth) settle() {
	if o.Grant == "" {
		o.Grant = grantRefresh
		if !o.RefreshToken.IsSet() && o.Provider == microsoft {
			o.Grant = grantClient
		}
	}
	switch o.Provider {
	case google:
		if o.TokenURL == "" {
			o.TokenURL = "https://oauth2.googleapis.com/token"
		}
	case microsoft:
		o.settleMicrosoft()
	}
}

func (o *OAuth) settleMicrosoft() {
	if o.TokenURL == "" {
		tenant := o.Tenant
		if tenant == "" {
			tenant = "common"
		}
		o.TokenURL = "https://login.microsoftonline.com/" + url.PathEscape(tenant) + "/oauth2/v2.0/token"
	}
	switch {
	case len(o.Scopes) > 0:
	case o.Grant == grantClient:
		o.Scopes = []string{"https://outlook.office365.com/.default"}
	default:
		o.Scopes = []string{"https://outlook.office.com/IMAP.AccessAsUser.All", "offline_access"}
	}
}

func (o *OAuth) validateEndpoint(bad func(name, problem string)) {
	if o.TokenURL == "" {
		bad("TOKEN_URL", "must be given, or provider (google, microsoft), or token_file, or token_command")
	} else if problem := badEndpoint(o.TokenURL); problem != "" {
		bad("TOKEN_URL", problem)
	}
	if o.ClientID == "" {
		bad("CLIENT_ID", "must be given: it is the application's id with the provider (docs/oauth.md)")
	}
	if o.Tenant != "" && o.Provider != microsoft {
		bad("TENANT", "is for provider: microsoft")
	}
	switch {
	case o.Grant == grantRefresh && !o.RefreshToken.IsSet():
		bad("REFRESH_TOKEN", "must be given, best as refresh_token_file (docs/oauth.md)")
	case o.Grant == grantClient && o.RefreshToken.IsSet():
		bad("REFRESH_TOKEN", "contradicts grant: client_credentials, which has none")
	}
	if o.Grant != grantClient {
		return
	}
	if !o.ClientSecret.IsSet() {
		bad("CLIENT_SECRET", "must be given: with grant: client_credentials it is what the application proves itself with")
	}
	switch {
	case o.Provider == google:
		bad("GRANT", "cannot be client_credentials with Google: give a refresh_token")
	case o.Provider == microsoft && o.Tenant == "":
		bad("TENANT", "must be given: with grant: client_credentials the application belongs to one directory")
	}
}

// badEndpoint says what is wrong with a token endpoint. Secrets are sent there.
func badEndpoint(text string) string {
	endpoint, err := url.Parse(text)
	switch {
	case err != nil || endpoint.Host == "":
		return "must be a URL like https://login.example/token"
	case endpoint.User != nil:
		return "must have no user or password in it: that is client_id and client_secret"
	case endpoint.Scheme != "https" && (endpoint.Scheme != "http" || !isLoopback(endpoint.Hostname())):
		return "must begin with https://, because secrets are sent there"
	}
	return ""
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
}
