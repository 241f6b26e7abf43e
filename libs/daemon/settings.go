package daemon

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"

	"spamtraps.internal/libs/secret"
)

// setting is one field of a configuration struct. Every layer writes the field through it, and everything that is printed
// about settings is read from it. It is a pflag.Value.
type setting struct {
	section  *section
	name     string // inside of the section: "PORT"
	variable string // "AMQP_PORT", or "" when there is none
	key      string // inside of the section's map: "port", or "" when there is none
	flag     string // without its dashes, or ""
	short    string
	desc     string
	empty    string // what it means to set it to empty, or "" when that is refused
	unit     string
	oneof    []string
	over     []string // names of the settings in this section that this one says as well

	field   reflect.Value
	initial reflect.Value // the default, to go back to
	from    origin
	// silenced is the setting that says what this one would have said, nil when this one counts.
	silenced *setting
	// rejected is true once a problem was reported: one sentence a setting is enough.
	rejected bool
}

// section is a struct of settings with a common prefix, or the rest of the configuration, whose name is "".
type section struct {
	name, desc string
	settings   []*setting
	validate   func(bad func(name, problem string))
}

// layer says who set a value; a higher one counts.
type layer int

const (
	byDefault layer = iota
	byFile
	byVariable
	byFlag
)

// origin is where a value comes from. name is how its author wrote it: "AMQP_PORT", "feed.yml:7: amqp.port", "--port".
type origin struct {
	layer layer
	name  string
}

// validator is what a section, or the whole configuration, may have.
type validator interface {
	Validate(bad func(name, problem string))
}

// walk lists the settings of the struct that config points to: first those outside of sections, then section by section.
// It panics when the struct is not one that the package's documentation describes.
func walk(config any) []*section {
	root := reflect.ValueOf(config).Elem()
	sections := []*section{newSection(root, "", "")}
	walkStruct(root, func(field reflect.StructField, value reflect.Value) {
		if name, ok := field.Tag.Lookup("section"); ok {
			sections = append(sections, newSection(value, name, field.Tag.Get("desc")))
		}
	})
	return sections
}

func newSection(value reflect.Value, name, desc string) *section {
	sec := &section{name: name, desc: desc}
	if v, ok := reflect.TypeAssert[validator](value.Addr()); ok {
		sec.validate = v.Validate
	}
	walkStruct(value, func(field reflect.StructField, value reflect.Value) {
		if _, ok := field.Tag.Lookup("env"); ok {
			sec.settings = append(sec.settings, newSetting(sec, field.Tag, value))
		}
	})
	sec.checkOver()
	return sec
}

// checkOver panics when the tag over names what isn't there.
func (sec *section) checkOver() {
	for _, s := range sec.settings {
		for _, name := range s.over {
			if sec.setting(name) == nil {
				panic(fmt.Sprintf("daemon: %s is over %s, which isn't there", s.title(), name))
			}
		}
	}
}

func (sec *section) setting(name string) *setting {
	for _, s := range sec.settings {
		if s.name == name {
			return s
		}
	}
	return nil
}

// walkStruct visits the fields of a struct and of the structs embedded in it.
func walkStruct(value reflect.Value, visit func(reflect.StructField, reflect.Value)) {
	for field, value := range value.Fields() {
		if field.Anonymous && field.Tag == "" {
			walkStruct(value, visit)
			continue
		}
		visit(field, value)
	}
}

func newSetting(sec *section, tag reflect.StructTag, field reflect.Value) *setting {
	s := &setting{
		section: sec, flag: tag.Get("flag"), short: tag.Get("short"), desc: tag.Get("desc"), empty: tag.Get("empty"), unit: tag.Get("unit"),
		oneof: strings.Fields(tag.Get("oneof")), over: strings.Fields(tag.Get("over")),
		field: field, initial: reflect.New(field.Type()).Elem(),
	}
	if !supported(field.Type()) {
		panic(fmt.Sprintf("daemon: a setting cannot be of type %s", field.Type()))
	}
	s.initial.Set(field)
	env, key := tag.Get("env"), tag.Get("yaml")
	switch env {
	case "-":
	case "": // the section's own name
		s.name, s.variable, s.key = sec.name, sec.name, "path"
	default:
		s.name, s.variable, s.key = env, joinName(sec.name, "_", env), strings.ToLower(env)
	}
	switch key {
	case "":
	case "-":
		s.key = ""
	default:
		s.key = key
	}
	if s.name == "" {
		s.name = s.flag
	}
	if s.name == "" {
		s.name = s.key
	}
	if s.name == "" {
		panic(fmt.Sprintf("daemon: a setting with the tag %s can be set by nothing", tag))
	}
	return s
}

// Set parses text into the field; see parse. An empty text is the zero value, for settings that know what that means.
func (s *setting) Set(text string) error {
	if text == "" {
		s.field.SetZero()
		return nil
	}
	if len(s.oneof) > 0 {
		if err := oneOf(s.field, s.oneof, text); err != nil {
			return err
		}
	}
	return parse(s.field, text, s.unit)
}

// setFile makes a secret one that is read from path.
func (s *setting) setFile(path string) { s.field.Addr().Interface().(*secret.Secret).SetFile(path) }

func (s *setting) setDefault() { s.field.Set(s.initial) }

// String shows the value; a secret shows as ***.
func (s *setting) String() string { return show(s.field, s.unit) }

// Type names what -h expects after the flag; bool is a word that pflag knows.
func (s *setting) Type() string { return s.field.Type().String() }

func (s *setting) isSecret() bool { return s.field.Type() == reflect.TypeFor[secret.Secret]() }
func (s *setting) isBool() bool   { return s.field.Kind() == reflect.Bool }

// isPlain tells whether a value is a number, a bool or a time, which need no quotes in YAML.
func (s *setting) isPlain() bool {
	switch s.field.Interface().(type) {
	case time.Duration:
		return true
	case encoding.TextMarshaler, encoding.TextUnmarshaler:
		return false
	}
	return s.field.CanInt() || s.field.CanUint() || s.field.CanFloat() || s.isBool()
}

// isList tells a slice that is a list of values from one that is itself a value, like net.IP.
func (s *setting) isList() bool {
	_, text := reflect.TypeAssert[encoding.TextUnmarshaler](s.field.Addr())
	return s.field.Kind() == reflect.Slice && !text
}

// secretFile is the path that a secret is read from, or "".
func (s *setting) secretFile() string {
	if held, ok := reflect.TypeAssert[secret.Secret](s.field); ok {
		return held.File()
	}
	return ""
}

// path is the key as one word: "amqp.port".
func (s *setting) path() string { return joinName(strings.ToLower(s.section.name), ".", s.key) }

// title is the name to call a setting by when nobody has set it.
func (s *setting) title() string {
	switch {
	case s.variable != "":
		return s.variable
	case s.flag != "":
		return "--" + s.flag
	default:
		return s.path()
	}
}

// writtenAs is the name to call a setting by in a sentence: as it was written by who set it.
func (s *setting) writtenAs() string {
	if s.from.layer != byDefault {
		return s.from.name
	}
	return s.title()
}

// defaultText is the default for -h and the documentation, where an empty one shows as what it means.
func (s *setting) defaultText() string {
	if s.empty != "" && isEmpty(s.initial) {
		return "(" + s.empty + ")"
	}
	return show(s.initial, s.unit)
}

// isEmpty tells whether a field is as an empty text would make it.
func isEmpty(field reflect.Value) bool {
	return field.IsZero() || (field.Kind() == reflect.Slice && field.Len() == 0)
}

func joinName(prefix, separator, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + separator + name
}
