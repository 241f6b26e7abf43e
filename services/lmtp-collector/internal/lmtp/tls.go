package lmtp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// tlsConfig returns what STARTTLS is answered with, or nil when it is not set. The files are read again for each handshake, so
// that a renewed certificate needs no restart.
func (c *Config) tlsConfig() *tls.Config {
	if c.TLSCertFile == "" {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return c.readTLS()
	}}
}

func (c *Config) readTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("our own certificate: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if c.TLSClientCAFile != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs, err = readAuthorities(c.TLSClientCAFile)
	}
	return config, err
}

func readAuthorities(file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("clients' authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("clients' authorities: no certificate in %s", file)
	}
	return pool, nil
}

func (c *Config) validateTLS(bad func(name, problem string)) {
	switch {
	case c.TLSCertFile == "" && c.TLSKeyFile == "" && c.TLSClientCAFile == "":
		return
	case c.TLSCertFile == "":
		bad("TLS_CERT_FILE", "must be set too when LMTP_TLS_KEY_FILE or LMTP_TLS_CLIENT_CA_FILE is")
		return
	case c.TLSKeyFile == "":
		bad("TLS_KEY_FILE", "must be set too when LMTP_TLS_CERT_FILE is")
		return
	}
	if _, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile); err != nil {
		name := "TLS_CERT_FILE"
		if _, missing := os.Stat(c.TLSKeyFile); missing != nil {
			name = "TLS_KEY_FILE"
		}
		bad(name, "cannot be used: "+err.Error())
	}
	if c.TLSClientCAFile == "" {
		return
	}
	if _, err := readAuthorities(c.TLSClientCAFile); err != nil {
		bad("TLS_CLIENT_CA_FILE", "cannot be used: "+errors.Unwrap(err).Error())
	}
}
