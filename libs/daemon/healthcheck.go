package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// healthcheckTimeout is below that of any orchestrator's probe that waits for the answer.
const healthcheckTimeout = 3 * time.Second

// readyText is as much of an answer as is shown.
const readyText = 64 << 10

// healthcheck asks a running service for its /readyz and prints the answer. It serves images without a shell.
func healthcheck(ctx context.Context, p Process, url string) int {
	ctx, cancel := context.WithTimeout(ctx, healthcheckTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		fmt.Fprintf(p.Stderr, "healthcheck: %v\n", err)
		return ExitFailed
	}
	// A client of its own: the default one would send the question through HTTP_PROXY.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		fmt.Fprintf(p.Stderr, "healthcheck: %v\n", err)
		return ExitFailed
	}
	defer answer.Body.Close()
	if _, err := io.Copy(p.Stdout, io.LimitReader(answer.Body, readyText)); err != nil {
		fmt.Fprintf(p.Stderr, "healthcheck: %v\n", err)
		return ExitFailed
	}
	if answer.StatusCode != http.StatusOK {
		return ExitFailed
	}
	return ExitOK
}

// readyURL is where a service that listens on addr is asked from the same machine.
func readyURL(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		host, port = addr, ""
	}
	switch ip := net.ParseIP(host); {
	case host == "", ip != nil && ip.IsUnspecified() && ip.To4() != nil:
		host = "127.0.0.1"
	case ip != nil && ip.IsUnspecified():
		host = "::1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/readyz"
}
