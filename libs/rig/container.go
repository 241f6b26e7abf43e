package rig

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// Container is a running container. Its methods fail the test when docker refuses. Those that hurt it (Kill, Stop, Pause,
// Partition) return when it is done; what the test then waits for is up to the test.
type Container struct {
	// Name is the container's name for docker.
	Name string
	t    testing.TB
	net  string
}

// Options say how to start a container.
type Options struct {
	// Env holds variables as NAME=value.
	Env []string
	// Ports maps ports of the container to ports on loopback; 0 takes a free one, which stays the same over Stop and Start.
	Ports map[int]int
	// Network is a network made by NewNetwork; empty takes docker's own bridge.
	Network string
	// Alias is a further name in Network.
	Alias string
	// Args are further arguments for `docker run`, such as --read-only.
	Args []string
	// Folders are copied in before the start: a path that the container does not have yet to a folder here.
	Folders map[string]string
	// Command replaces the image's command.
	Command []string
}

var containers atomic.Int64

// Run starts a container of image that is removed, with its volumes, when the test ends. Ports in o that are 0 are filled in.
func Run(t testing.TB, image string, o Options) *Container {
	t.Helper()
	sweep(t)
	name := fmt.Sprintf("spamtraps-rig-%d-%d", os.Getpid(), containers.Add(1))
	t.Cleanup(func() { remove(t, name) })
	if err := start(name, strconv.Itoa(os.Getpid()), image, o); err != nil {
		t.Fatal(err)
	}
	return &Container{Name: name, t: t, net: network(o)}
}

func network(o Options) string {
	if o.Network == "" {
		return "bridge"
	}
	return o.Network
}

// start creates and starts a container; a port that somebody took meanwhile makes it try again with another one.
func start(name, owner, image string, o Options) error {
	var err error
	for range 3 {
		if err = tryStart(name, owner, image, o); err == nil || !strings.Contains(err.Error(), "already allocated") &&
			!strings.Contains(err.Error(), "address already in use") {
			return err
		}
		_, _ = docker("rm", "-f", "-v", name)
	}
	return err
}

func tryStart(name, owner, image string, o Options) error {
	args := []string{"create", "--name", name, "--label", label + "=" + owner, "--network", network(o)}
	if o.Alias != "" {
		args = append(args, "--network-alias", o.Alias)
	}
	for _, e := range o.Env {
		args = append(args, "-e", e)
	}
	for inside, outside := range o.Ports {
		port := outside
		if port == 0 {
			var err error
			if port, err = freePort(); err != nil {
				return err
			}
		}
		args = append(args, "-p", fmt.Sprintf("127.0.0.1:%d:%d", port, inside))
	}
	args = append(args, o.Args...)
	args = append(append(args, image), o.Command...)
	if _, err := docker(args...); err != nil {
		return err
	}
	for inside, here := range o.Folders {
		if _, err := docker("cp", here, name+":"+inside); err != nil {
			return err
		}
	}
	_, err := docker("start", name)
	return err
}

// remove takes a container away with its volumes. A container that is gone already is no error.
func remove(t testing.TB, name string) {
	t.Helper()
	if t.Failed() {
		if tail, err := docker("logs", "--tail", "200", name); err == nil {
			t.Logf("last lines of %s:\n%s", name, tail)
		}
	}
	// A paused container cannot be removed by engine 20.10.
	_, _ = docker("unpause", name)
	if _, err := docker("rm", "-f", "-v", name); err != nil && !strings.Contains(err.Error(), "No such container") {
		t.Errorf("remove container: %v", err)
	}
}

// sweep removes what test processes that are no more have left behind.
func sweep(t testing.TB) {
	t.Helper()
	unlock := lock(t)
	defer unlock()
	list := Docker(t, "ps", "-a", "--filter", "label="+label, "--format", `{{.Names}} {{.Label "`+label+`"}}`)
	for line := range strings.Lines(list) {
		name, owner, _ := strings.Cut(strings.TrimSpace(line), " ")
		pid, err := strconv.Atoi(owner)
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_, _ = docker("unpause", name)
			_, _ = docker("rm", "-f", "-v", name)
		}
	}
}

// NewNetwork makes a bridge network that is removed when the test ends, after the containers that were started later.
func NewNetwork(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("spamtraps-rig-%d-net-%d", os.Getpid(), containers.Add(1))
	Docker(t, "network", "create", "--label", label+"="+strconv.Itoa(os.Getpid()), name)
	t.Cleanup(func() { Docker(t, "network", "rm", name) })
	return name
}

// Port returns the port on loopback that a port of the container is published on.
func (c *Container) Port(inside int) int {
	c.t.Helper()
	out := Docker(c.t, "port", c.Name, strconv.Itoa(inside))
	first, _, _ := strings.Cut(out, "\n")
	port, err := strconv.Atoi(first[strings.LastIndexByte(first, ':')+1:])
	if err != nil {
		c.t.Fatalf("port %d of %s: docker says %q", inside, c.Name, out)
	}
	return port
}

// Exec runs a command inside and returns its output.
func (c *Container) Exec(command ...string) string {
	c.t.Helper()
	return Docker(c.t, append([]string{"exec", c.Name}, command...)...)
}

// Logs returns what the container has written so far.
func (c *Container) Logs() string {
	c.t.Helper()
	return Docker(c.t, "logs", c.Name)
}

// Kill ends the container's processes with SIGKILL.
func (c *Container) Kill() { c.t.Helper(); Docker(c.t, "kill", "-s", "KILL", c.Name) }

// Stop asks the container to end (SIGTERM) and kills it after 30 s.
func (c *Container) Stop() { c.t.Helper(); Docker(c.t, "stop", "-t", "30", c.Name) }

// Start starts a container that was stopped or killed, with the same published ports.
func (c *Container) Start() { c.t.Helper(); Docker(c.t, "start", c.Name) }

// Pause freezes every process of the container; its connections stay open and silent. The kernel's freezer gives up on a
// busy machine now and then, so it is asked again.
func (c *Container) Pause() {
	c.t.Helper()
	for range 3 {
		if _, err := docker("pause", c.Name); err == nil {
			return
		}
	}
	Docker(c.t, "pause", c.Name)
}

// Unpause thaws it.
func (c *Container) Unpause() { c.t.Helper(); Docker(c.t, "unpause", c.Name) }

// Partition takes the container off its network: packets go nowhere, nothing is closed.
func (c *Container) Partition() { c.t.Helper(); Docker(c.t, "network", "disconnect", c.net, c.Name) }

// Rejoin puts it back.
func (c *Container) Rejoin() { c.t.Helper(); Docker(c.t, "network", "connect", c.net, c.Name) }
