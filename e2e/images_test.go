// Package e2e tests the images as a user gets them: from outside, over the network, against real peers.
package e2e

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
)

// services are the images that docker/Dockerfile makes.
var services = []string{"imap-collector", "lmtp-collector", "hpfeeds-bridge", "hpfeeds-broker"}

const maxImageBytes = 20_000_000

func TestServiceImagesHoldNothingButTheService(t *testing.T) {
	for _, service := range services {
		t.Run(service, func(t *testing.T) {
			image := rig.Image(t, service)
			var about []struct {
				Size   int64
				Config struct {
					User        string
					Entrypoint  []string
					Healthcheck *struct{ Test []string }
					Labels      map[string]string
				}
			}
			if err := json.Unmarshal([]byte(rig.Docker(t, "image", "inspect", image)), &about); err != nil {
				t.Fatal(err)
			}
			if about[0].Size > maxImageBytes {
				t.Errorf("the image has %d bytes, more than %d", about[0].Size, maxImageBytes)
			}
			config := about[0].Config
			if config.User != "65532:65532" {
				t.Errorf("it runs as %q", config.User)
			}
			if config.Healthcheck == nil || !slices.Contains(config.Healthcheck.Test, "healthcheck") {
				t.Errorf("health check: %+v", config.Healthcheck)
			}
			for _, label := range []string{"title", "version", "revision", "licenses", "created"} {
				if config.Labels["org.opencontainers.image."+label] == "" {
					t.Errorf("there is no label org.opencontainers.image.%s", label)
				}
			}
			for name, h := range files(t, image) {
				if h.Typeflag == tar.TypeReg && h.Mode&0o6000 != 0 {
					t.Errorf("%s is setuid or setgid", name)
				}
				if base := path.Base(name); base == "sh" || base == "bash" || base == "busybox" {
					t.Errorf("the image has a shell: %s", name)
				}
				if h.Typeflag == tar.TypeReg && h.Uid == 65532 && h.Mode&0o222 != 0 {
					t.Errorf("%s can be written by the service", name)
				}
			}
		})
	}
}

// files lists what is in an image.
func files(t *testing.T, image string) map[string]*tar.Header {
	t.Helper()
	container := rig.Docker(t, "create", image)
	t.Cleanup(func() { rig.Docker(t, "rm", "-v", container) })
	export := exec.CommandContext(t.Context(), "docker", "export", container)
	out, err := export.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := export.Start(); err != nil {
		t.Fatal(err)
	}
	found := map[string]*tar.Header{}
	for archive := tar.NewReader(out); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h
	}
	if err := export.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("docker exported nothing of %s", image)
	}
	return found
}

// A bad setting must stop the container at once, with the sentence that says which: a container that restarts for ever
// without a word is what operators curse.
func TestServiceImageRefusesABadSettingWithASentence(t *testing.T) {
	for _, service := range services {
		misspelt, meant := "AMQP_PROT", "AMQP_PORT"
		if service == "hpfeeds-broker" { // which knows no other broker
			misspelt, meant = "BROKER_LISTNE", "BROKER_LISTEN"
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, "docker", "run", "--rm", "-e", misspelt+"=5672", rig.Image(t, service)).CombinedOutput()
		cancel()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("%s: %v, want exit code 2", service, err)
		}
		if !strings.Contains(string(out), misspelt) || !strings.Contains(string(out), meant) {
			t.Errorf("%s says: %s", service, out)
		}
	}
}

// The workspace's Go and the builder image's must be one release, or tests prove another program than is shipped.
func TestGoVersionsAgree(t *testing.T) {
	root := rig.Root(t)
	read := func(file, pattern string) string {
		raw, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindSubmatch(raw)
		if found == nil {
			t.Fatalf("%s does not match %s", file, pattern)
		}
		return string(found[1])
	}
	toolchain := read("tools/go-toolchain.sh", `(?m)^go_version=(.*)$`)
	workspace := read("go.work", `(?m)^go (\d+\.\d+)`)
	if !strings.HasPrefix(toolchain, workspace+".") {
		t.Errorf("go.work says %s, tools/go-toolchain.sh fetches %s", workspace, toolchain)
	}
}
