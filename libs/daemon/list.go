package daemon

import (
	"errors"
	"fmt"
	"io/fs"

	"go.yaml.in/yaml/v4"
)

// ReadList reads a YAML file that holds a list of maps, such as mailboxes.yml: each entry becomes a T over what defaults returns, which is
// called once an entry. T is a struct with the tags of settings, sections among them; of the tags those of variables and flags mean nothing
// there, but the name in env is what Validate and Item.Bad call a setting by. T's method Validate, and those of its sections, are called as for
// a configuration. An empty file is an empty list.
//
// It blocks on the disk: secrets that come from files are read once, to see that they are there. Whatever is wrong is among
// the problems of the list; what could be read is among its items in any case.
func ReadList[T any](path string, defaults func() T) *List[T] {
	list := &List[T]{file: new(loader)}
	data, err := readFeed(path)
	if err != nil {
		list.file.bad("%s cannot be read: %v", path, cause(err))
		return list
	}
	root, err := parseYAML(data)
	switch {
	case err != nil:
		list.file.bad("%s%v", path, err)
	case isNull(root):
	case root.Kind != yaml.SequenceNode:
		list.file.bad("%s:%d: must hold a list of maps, each beginning with \"- \", not %s", path, root.Line, kindName(root))
	default:
		for _, node := range root.Content {
			list.read(path, resolve(node), defaults())
		}
	}
	return list
}

// List is a file that ReadList has read.
type List[T any] struct {
	Items []*Item[T]
	file  *loader // what is wrong with the file as a whole
}

// Problems returns everything that is wrong, one sentence each: first what concerns no entry, then entry by entry. Each begins with what it is
// about: "FILE:LINE: key".
func (l *List[T]) Problems() []string {
	problems := l.file.problems
	for _, item := range l.Items {
		problems = append(problems, item.loader.problems...)
	}
	return problems
}

func (l *List[T]) read(path string, node *yaml.Node, initial T) {
	if node.Kind != yaml.MappingNode {
		l.file.bad("%s:%d: must be a map of settings, not %s", path, node.Line, kindName(node))
		return
	}
	item := &Item[T]{Value: initial, Line: node.Line, path: path}
	item.loader = newLoader(&item.Value, nil)
	item.loader.place = fmt.Sprintf("%s:%d: ", path, node.Line)
	f := feed{loader: item.loader, path: path}
	f.eachKey(node, "", f.topKey)
	for _, sec := range item.loader.sections {
		item.loader.applyOver(sec)
	}
	for s := range item.loader.all {
		item.loader.checkSecretFile(s)
	}
	item.loader.validateSections()
	l.Items = append(l.Items, item)
}

// Item is one entry of a List.
type Item[T any] struct {
	Value T
	// Line is where the entry begins.
	Line int

	path   string
	loader *loader
}

// Bad adds a problem with a setting, by the name that Validate knows it by from outside of sections ("PORT", "OAUTH_TENANT"). Of each setting
// the first problem counts.
func (i *Item[T]) Bad(name, problem string) { i.loader.reporter(i.loader.sections[0])(name, problem) }

// Has tells whether the entry itself says something of a setting.
func (i *Item[T]) Has(name string) bool {
	for s := range i.loader.all {
		if s.variable == name {
			return s.from.layer != byDefault
		}
	}
	return false
}

// OK tells whether nothing is wrong with the entry so far.
func (i *Item[T]) OK() bool { return len(i.loader.problems) == 0 }

// cause is what is wrong with a file, without its name, which the sentence says already.
func cause(err error) error {
	if failed := new(fs.PathError); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
