package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// foreign are the keys at the top of a feed file that belong to another of our services: one file serves all of them, so a
// service reads its own keys and leaves these alone, unread and unchecked.
var foreign = []string{
	"amqp", "hpfeeds", "lmtp", "imap", "bridge",
	"maildir", "maildir_keep", "maildir_min_free", "maildir_max_bytes", "maildir_max_age",
	"mailbox_config", "shard_index", "shard_count",
}

// readYAML applies the file at path, which the setting called from names.
func (l *loader) readYAML(path, from string) {
	data, err := readFeed(path)
	if err != nil {
		l.bad("%s must name a file that can be read: %v", from, err)
		return
	}
	root, err := parseYAML(data)
	if err != nil {
		l.bad("%s%v", path, err)
		return
	}
	if isNull(root) {
		return
	}
	if root.Kind != yaml.MappingNode {
		l.bad("%s:%d: must hold a map of settings, like \"amqp:\", not %s", path, root.Line, kindName(root))
		return
	}
	f := feed{loader: l, path: path, foreign: foreign}
	f.eachKey(root, "", f.topKey)
}

// parseYAML returns the content of the one document in data, nil when it is empty. The error begins with ":LINE: " where the
// line is known, and never shows a piece of the document, which may be a password.
func parseYAML(data []byte) (*yaml.Node, error) {
	stream, err := yaml.NewLoader(bytes.NewReader(data), yaml.WithUniqueKeys(false)) // the walk reports those, with file and line
	if err != nil {
		return nil, fmt.Errorf(": cannot be read: %w", err)
	}
	var document, second yaml.Node
	switch err := stream.Load(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, yamlError(err)
	}
	if err := stream.Load(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf(":%d: must hold one YAML document, and here begins another", second.Line)
	}
	return resolve(document.Content[0]), nil
}

// yamlError puts the library's message into our form. The composer's only message is the one that shows text of the document.
func yamlError(err error) error {
	var broken *yaml.LoadError
	if !errors.As(err, &broken) {
		return errors.New(": is not YAML")
	}
	line := ""
	if broken.Mark.Line > 0 {
		line = fmt.Sprintf(":%d", broken.Mark.Line)
	}
	message := broken.Message
	if broken.Stage == yaml.ComposerStage {
		message = "a value that begins with * must be in quotes"
	}
	return fmt.Errorf("%s: is not YAML: %s", line, message)
}

// feed is a YAML file on its way into the settings.
type feed struct {
	loader *loader
	path   string
	// foreign are the keys at the top that are left alone.
	foreign []string
}

// eachKey calls visit for the entries of a map, and refuses a key that is there twice. prefix is the path before the keys.
func (f feed) eachKey(mapping *yaml.Node, prefix string, visit func(key, value *yaml.Node)) {
	lines := make(map[string]int)
	for pair := range slices.Chunk(mapping.Content, 2) {
		key, value := resolve(pair[0]), resolve(pair[1])
		if first := lines[key.Value]; first > 0 {
			f.loader.bad("%s is there twice, first in line %d", f.name(key, prefix), first)
			continue
		}
		lines[key.Value] = pair[0].Line
		visit(key, value)
	}
}

func (f feed) topKey(key, value *yaml.Node) {
	for _, sec := range f.loader.sections[1:] {
		if strings.ToLower(sec.name) == key.Value {
			f.section(sec, key, value)
			return
		}
	}
	plain := f.loader.sections[0]
	if f.setting(plain, key, value) || slices.Contains(f.foreign, key.Value) {
		return
	}
	known := f.keys(plain)
	for _, sec := range f.loader.sections[1:] {
		known[strings.ToLower(sec.name)] = true
	}
	f.loader.bad("%s is no setting%s", f.name(key, ""), suggestion(key.Value, known))
}

func (f feed) section(sec *section, key, value *yaml.Node) {
	if isNull(value) { // all of its keys are commented out
		return
	}
	if value.Kind != yaml.MappingNode {
		f.loader.bad("%s must be a map of settings, not %s", f.name(key, ""), kindName(value))
		return
	}
	prefix := strings.ToLower(sec.name)
	f.eachKey(value, prefix, func(key, value *yaml.Node) {
		if !f.setting(sec, key, value) {
			f.loader.bad("%s is no setting%s", f.name(key, prefix), suggestion(joinName(prefix, ".", key.Value), f.keys(sec)))
		}
	})
}

// setting applies one entry, and tells whether the section has a setting with this key.
func (f feed) setting(sec *section, key, value *yaml.Node) bool {
	for _, s := range sec.settings {
		from := origin{byFile, f.name(key, strings.ToLower(sec.name))}
		switch {
		case s.key == "":
		case key.Value == s.key:
			f.assign(s, from, value)
			return true
		case s.isSecret() && key.Value == s.key+"_file":
			f.assignFile(s, from, value)
			return true
		}
	}
	return false
}

func (f feed) assign(s *setting, from origin, value *yaml.Node) {
	switch {
	case isOwnTag(value):
		f.loader.reject(s, from.name, "begins with ! and so must be in quotes")
	case isNull(value):
		f.loader.assign(s, from, "")
	case value.Kind == yaml.ScalarNode:
		f.loader.assign(s, from, value.Value)
	case value.Kind == yaml.SequenceNode && s.isList():
		f.assignList(s, from, value)
	default:
		f.loader.reject(s, from.name, "must be one value, not "+kindName(value))
	}
}

func (f feed) assignFile(s *setting, from origin, value *yaml.Node) {
	switch {
	case isNull(value):
		f.loader.assignFile(s, from, "")
	case value.Kind == yaml.ScalarNode:
		f.loader.assignFile(s, from, value.Value)
	default:
		f.loader.reject(s, from.name, "must be the path of a file, not "+kindName(value))
	}
}

func (f feed) assignList(s *setting, from origin, value *yaml.Node) {
	items := make([]string, len(value.Content))
	for i, item := range value.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode || isNull(item) {
			f.loader.reject(s, from.name, "must be a list of values, and one is "+kindName(item))
			return
		}
		items[i] = item.Value
	}
	f.loader.assignList(s, from, items)
}

// name is how a sentence calls an entry of the file: "feed.yml:7: amqp.port".
func (f feed) name(key *yaml.Node, prefix string) string {
	return fmt.Sprintf("%s:%d: %s", f.path, key.Line, joinName(prefix, ".", plainName(key.Value)))
}

// keys are the paths of a section's settings.
func (f feed) keys(sec *section) map[string]bool {
	known := make(map[string]bool)
	for _, s := range sec.settings {
		if s.key == "" {
			continue
		}
		known[s.path()] = true
		if s.isSecret() {
			known[s.path()+"_file"] = true
		}
	}
	return known
}

// resolve follows an alias to what it stands for; an anchor cannot be an alias itself.
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

// isOwnTag tells a value like !hunter2, which YAML takes for a type of the application's own.
func isOwnTag(node *yaml.Node) bool {
	return strings.HasPrefix(node.Tag, "!") && !strings.HasPrefix(node.Tag, "!!")
}

func isNull(node *yaml.Node) bool {
	return node == nil || (node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null")
}

func kindName(node *yaml.Node) string {
	switch {
	case isNull(node):
		return "nothing"
	case node.Kind == yaml.MappingNode:
		return "a map"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	default:
		return "a single value"
	}
}
