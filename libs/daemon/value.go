package daemon

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"spamtraps.internal/libs/secret"
)

// parse sets field from text: the one way from text to a value that YAML, variables and flags share. On an error, which reads
// on after the setting's name, the field is as it was. No error shows the value of a secret, because a secret takes any text.
func parse(field reflect.Value, text, unit string) error {
	switch target := field.Addr().Interface().(type) {
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return mustBe(`a time with its unit, like 500ms, 30s or 5m`, text)
		}
		*target = d
		return nil
	case encoding.TextUnmarshaler:
		return parseText(field, target, text)
	}
	switch field.Kind() {
	case reflect.String:
		field.SetString(text)
		return nil
	case reflect.Bool:
		return parseBool(field, text)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return parseInt(field, text, unit)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, field.Type().Bits())
		if err != nil {
			return mustBe(fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-field.Type().Bits())), text)
		}
		field.SetUint(n)
		return nil
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return mustBe("a number", text)
		}
		field.SetFloat(f)
		return nil
	case reflect.Slice:
		return parseList(field, strings.Split(text, ","), unit)
	default:
		panic("daemon: supported allows what parse cannot do")
	}
}

// supported tells whether parse can set a value of type t.
func supported(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return true
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	default:
		return t.Kind() == reflect.Slice && supported(t.Elem())
	}
}

// parseText works on a fresh value, so that a half-done UnmarshalText leaves nothing behind.
func parseText(field reflect.Value, target encoding.TextUnmarshaler, text string) error {
	fresh := reflect.New(field.Type())
	if err := fresh.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("cannot be %s: %w", quote(text), err)
	}
	reflect.ValueOf(target).Elem().Set(fresh.Elem())
	return nil
}

func parseInt(field reflect.Value, text, unit string) error {
	if unit == "bytes" {
		n, ok := parseBytes(text)
		if !ok {
			return mustBe(`a number of bytes, like 16MiB or 1000000`, text)
		}
		field.SetInt(n)
		return nil
	}
	n, err := strconv.ParseInt(text, 10, field.Type().Bits())
	switch {
	case errors.Is(err, strconv.ErrRange):
		return fmt.Errorf("is out of range: %s", quote(text))
	case err != nil:
		return mustBe("a whole number", text)
	}
	field.SetInt(n)
	return nil
}

// parseBool takes the words of YAML 1.1, as people write them in the old package's files, and 1 and 0.
func parseBool(field reflect.Value, text string) error {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "y", "1":
		field.SetBool(true)
	case "false", "no", "off", "n", "0":
		field.SetBool(false)
	default:
		return mustBe("true or false", text)
	}
	return nil
}

func parseList(field reflect.Value, items []string, unit string) error {
	list := reflect.MakeSlice(field.Type(), len(items), len(items))
	for i, item := range items {
		item = strings.TrimSpace(item)
		if item == "" {
			return errors.New("has an empty item")
		}
		if err := parse(list.Index(i), item, unit); err != nil {
			return fmt.Errorf("has an item that %w", err)
		}
	}
	field.Set(list)
	return nil
}

// byteUnits are listed with the largest first, and those that show takes before the decimal ones.
var byteUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"B", 1},
	{"", 1},
}

// parseBytes reads a whole number with or without a unit. "16M" is refused, because people disagree about what it is.
func parseBytes(text string) (int64, bool) {
	digits := strings.TrimRight(text, "TGMKkiB ")
	unit := strings.TrimSpace(text[len(digits):])
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	for _, u := range byteUnits {
		if u.name == unit {
			return n * u.bytes, n <= math.MaxInt64/u.bytes
		}
	}
	return 0, false
}

// show is the way back from parse: text that parse reads as the same value, but for secrets, which show as ***.
func show(field reflect.Value, unit string) string {
	switch v := field.Interface().(type) {
	case secret.Secret:
		return v.String()
	case time.Duration:
		return showDuration(v)
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			return ""
		}
		return string(text)
	}
	switch {
	case field.Kind() == reflect.Slice:
		return strings.Join(showList(field, unit), ",")
	case unit == "bytes":
		return showBytes(field.Int())
	default:
		return fmt.Sprint(field.Interface())
	}
}

func showList(field reflect.Value, unit string) []string {
	items := make([]string, field.Len())
	for i := range items {
		items[i] = show(field.Index(i), unit)
	}
	return items
}

// showDuration is Duration.String without its zeros: 5m rather than 5m0s.
func showDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func showBytes(n int64) string {
	for _, u := range byteUnits[:4] {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func mustBe(what, text string) error { return fmt.Errorf("must be %s, not %s", what, quote(text)) }

// oneOf checks text, or each item of a list, against the values that there are.
func oneOf(field reflect.Value, allowed []string, text string) error {
	items := []string{text}
	if field.Kind() == reflect.Slice {
		items = strings.Split(text, ",")
	}
	for _, item := range items {
		if item = strings.TrimSpace(item); !slices.Contains(allowed, item) {
			return mustBe(strings.Join(allowed, " or "), item)
		}
	}
	return nil
}

// quoteLimit is enough to recognise a value by, in runes.
const quoteLimit = 40

// quote makes a foreign text safe and short enough for a sentence on a terminal.
func quote(text string) string {
	runes := []rune(text)
	if len(runes) > quoteLimit {
		return strconv.Quote(string(runes[:quoteLimit])) + "…"
	}
	return strconv.Quote(text)
}
