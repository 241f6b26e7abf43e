package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"spamtraps.internal/libs/secret"
)

// loader applies the layers to the settings of one configuration and collects every problem on the way, so that an operator
// can mend all of them at once.
type loader struct {
	sections []*section
	prefixes []string // of variables, each with its "_"
	problems []string
	// place is where an entry of a list begins, "" outside of lists.
	place string
}

// flagText is a flag as it was given.
type flagText struct {
	setting *setting
	text    string
}

func newLoader(config any, prefixes []string) *loader {
	l := &loader{sections: walk(config)}
	for _, sec := range l.sections {
		if sec.name != "" {
			l.prefixes = append(l.prefixes, sec.name+"_")
		}
	}
	for _, prefix := range prefixes {
		l.prefixes = append(l.prefixes, prefix+"_")
	}
	return l
}

// load applies YAML file, variables and flags over the defaults, checks the whole, and returns the problems.
func (l *loader) load(common *Common, env []string, flags []flagText) []string {
	l.apply(common, env, flags)
	for s := range l.all {
		l.checkSecretFile(s)
	}
	l.validate(common)
	return l.problems
}

// apply applies YAML file, variables and flags over the defaults.
func (l *loader) apply(common *Common, env []string, flags []flagText) {
	variables := environment(env)
	if path, from := feedConfig(common.FeedConfig, variables, flags); path != "" {
		l.readYAML(path, from)
	}
	l.applyVariables(variables)
	for _, f := range flags {
		l.assign(f.setting, origin{byFlag, "--" + f.setting.flag}, f.text)
	}
	for _, sec := range l.sections {
		l.applyOver(sec)
	}
}

func (l *loader) validate(common *Common) {
	common.fromFile = make(map[string]bool)
	for s := range l.all {
		common.fromFile[s.variable] = s.from.layer == byFile
	}
	common.validate(l.reporter(l.sections[0]))
	l.validateSections()
}

// validateSections asks the sections first, so that the whole struct sees what they have settled.
func (l *loader) validateSections() {
	for _, sec := range append(slices.Clone(l.sections[1:]), l.sections[0]) {
		if sec.validate != nil {
			sec.validate(l.reporter(sec))
		}
	}
}

func (l *loader) all(yield func(*setting) bool) {
	for _, sec := range l.sections {
		for _, s := range sec.settings {
			if !yield(s) {
				return
			}
		}
	}
}

func (l *loader) bad(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// feedConfig looks for the path of the YAML file in the layers above it, before these are applied.
func feedConfig(path string, variables map[string]string, flags []flagText) (string, string) {
	from := "FEED_CONFIG"
	if text, ok := variables["FEED_CONFIG"]; ok {
		path = text
	}
	for _, f := range flags {
		if f.setting.flag == "feed-config" {
			path, from = f.text, "--feed-config"
		}
	}
	return path, from
}

func environment(env []string) map[string]string {
	variables := make(map[string]string, len(env))
	for _, entry := range env {
		name, text, _ := strings.Cut(entry, "=")
		variables[name] = text
	}
	return variables
}

func (l *loader) applyVariables(variables map[string]string) {
	known := make(map[string]bool)
	for s := range l.all {
		if s.variable == "" {
			continue
		}
		known[s.variable] = true
		if text, ok := variables[s.variable]; ok {
			l.assign(s, origin{byVariable, s.variable}, text)
		}
		if !s.isSecret() {
			continue
		}
		known[s.variable+"_FILE"] = true
		if path, ok := variables[s.variable+"_FILE"]; ok {
			l.assignFile(s, origin{byVariable, s.variable + "_FILE"}, path)
		}
	}
	l.refuseUnknown(variables, known)
}

// refuseUnknown reports the variables that look like ours and aren't, without their values: it may be a password that has a
// misspelt name.
func (l *loader) refuseUnknown(variables map[string]string, known map[string]bool) {
	ours := func(name string) bool {
		return slices.ContainsFunc(l.prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
	}
	var unknown []string
	for name := range variables {
		if ours(name) && !known[name] {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		switch {
		case isServiceLink(name, variables[name]):
			l.bad("%s is no setting; %s", plainName(name), serviceLinkHint)
		default:
			l.bad("%s is no setting%s", plainName(name), suggestion(name, known))
		}
	}
}

// assign gives a setting the text of one layer.
func (l *loader) assign(s *setting, from origin, text string) {
	l.set(s, from, text, s.Set)
}

// assignFile gives a secret the path of a file. There is no empty path, whatever the secret itself may be.
func (l *loader) assignFile(s *setting, from origin, path string) {
	if path == "" {
		l.reject(s, from.name, "is empty: name a file or leave it out")
		return
	}
	l.set(s, from, path, func(path string) error {
		s.setFile(path)
		return nil
	})
}

// assignList gives a setting the items of a YAML list.
func (l *loader) assignList(s *setting, from origin, items []string) {
	for _, item := range items {
		if strings.Contains(item, ",") {
			l.reject(s, from.name, "has an item with a comma in it")
			return
		}
	}
	l.set(s, from, strings.Join(items, ","), s.Set)
}

func (l *loader) set(s *setting, from origin, text string, set func(string) error) {
	if s.from.layer == from.layer && s.from.name != from.name {
		l.reject(s, s.from.name+" and "+from.name, "are both set: choose one")
		return
	}
	s.from = from
	if text == "" && s.empty == "" {
		l.reject(s, from.name, "is empty: give a value or leave it out")
		return
	}
	err := set(text)
	switch {
	case err != nil && isServiceLink(from.name, text):
		l.reject(s, from.name, err.Error()+"; "+serviceLinkHint)
	case err != nil:
		l.reject(s, from.name, err.Error())
	}
}

// reject reports the first problem of a setting; what follows from a refused value would only confuse.
func (l *loader) reject(s *setting, name, problem string) {
	if !s.rejected {
		l.bad("%s %s", name, problem)
	}
	s.rejected = true
}

// applyOver lets a setting like AMQP_URL silence the lower layers of those that it replaces. In the same layer both are a
// contradiction, and so is a replaced one in a higher layer: a password in the environment that is silently ignored would
// surprise as much as a URL that is silently dropped.
func (l *loader) applyOver(sec *section) {
	for _, whole := range sec.settings {
		if len(whole.over) == 0 || whole.from.layer == byDefault {
			continue
		}
		for _, name := range whole.over {
			part := sec.setting(name)
			if part.from.layer >= whole.from.layer {
				l.reject(part, whole.from.name+" and "+part.from.name, "contradict each other, because the first says what the second says: choose one")
				continue
			}
			part.setDefault()
			part.from = origin{}
			part.silenced = whole
		}
	}
}

// checkSecretFile reads a secret's file once, only to refuse a start that could never log in.
func (l *loader) checkSecretFile(s *setting) {
	if s.secretFile() == "" {
		return
	}
	_, err := s.field.Interface().(secret.Secret).Reveal()
	var unreadable *fs.PathError
	switch {
	case errors.As(err, &unreadable):
		l.reject(s, l.writtenAs(s), fmt.Sprintf("names a file that cannot be read: %v", unreadable))
	case err != nil:
		l.reject(s, l.writtenAs(s), "names a file that is empty: "+s.secretFile())
	}
}

// writtenAs is the name to call a setting by in a sentence. In a list, where there are no variables, one that nobody has set goes by its key,
// and its entry's place.
func (l *loader) writtenAs(s *setting) string {
	if l.place != "" && s.from.layer == byDefault {
		return l.place + s.path()
	}
	return s.writtenAs()
}

// reporter is what Validate reports to: it turns the name inside of a section into the one that the operator wrote.
func (l *loader) reporter(sec *section) func(name, problem string) {
	return func(name, problem string) {
		for s := range l.all {
			if (s.section == sec && s.name == name) || (sec.name == "" && s.variable == name) {
				l.reject(s, l.writtenAs(s), problem)
				return
			}
		}
		l.bad("%s%s %s", l.place, joinName(sec.name, "_", name), problem)
	}
}

// maxFeedBytes is far beyond any configuration; a path like /dev/zero would never end without it.
const maxFeedBytes = 1 << 20

func readFeed(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFeedBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFeedBytes {
		return nil, fmt.Errorf("%s is larger than %s", path, showBytes(maxFeedBytes))
	}
	return data, nil
}

func (l *loader) hasSection(name string) bool {
	return slices.ContainsFunc(l.sections, func(sec *section) bool { return sec.name == name })
}
