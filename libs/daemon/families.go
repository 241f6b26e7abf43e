package daemon

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Family is what there is to know of one family of metrics before it has a value.
type Family struct {
	Name, Help string
	Type       dto.MetricType
	Labels     []string
}

// Families returns the families that a service registers with its default settings, sorted by name, without those of Go and of the process.
func Families[C any](svc Service[C]) ([]Family, error) {
	var all catalogue
	if err := all.Register(newReady(newReadiness())); err != nil {
		return nil, err
	}
	if err := all.Register(newBuildInfo(svc.Name)); err != nil {
		return nil, err
	}
	if svc.Metrics != nil {
		if err := svc.Metrics(svc.Defaults(), &all); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all.families, func(a, b Family) int { return strings.Compare(a.Name, b.Name) })
	return all.families, nil
}

// catalogue is a registry that only remembers what is registered: a family whose labels have no value yet is in no real registry's output.
type catalogue struct{ families []Family }

// Register remembers the families of c.
func (all *catalogue) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	var unreadable error
	for desc := range descs {
		family, err := readDesc(desc.String())
		if err != nil {
			unreadable = err
			continue
		}
		family.Type = typeOf(c, family.Name)
		all.families = append(all.families, family)
	}
	return unreadable
}

// MustRegister is Register, and panics where that returns an error.
func (all *catalogue) MustRegister(collectors ...prometheus.Collector) {
	for _, c := range collectors {
		if err := all.Register(c); err != nil {
			panic(err)
		}
	}
}

// Unregister does nothing.
func (all *catalogue) Unregister(prometheus.Collector) bool { return false }

// descText is how prometheus.Desc, which keeps its fields to itself, shows them.
var descText = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), (?:unit: "[^"]*", )?constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

func readDesc(text string) (Family, error) {
	parts := descText.FindStringSubmatch(text)
	if parts == nil {
		return Family{}, fmt.Errorf("daemon: the description of a metric cannot be read: %s", text)
	}
	name, err := strconv.Unquote(parts[1])
	if err != nil {
		return Family{}, fmt.Errorf("daemon: the name of a metric cannot be read: %s", text)
	}
	help, err := strconv.Unquote(parts[2])
	if err != nil {
		return Family{}, fmt.Errorf("daemon: the help of %s cannot be read: %s", name, text)
	}
	family := Family{Name: name, Help: help}
	for _, label := range constLabel.FindAllStringSubmatch(parts[3], -1) {
		family.Labels = append(family.Labels, label[1])
	}
	for label := range strings.SplitSeq(parts[4], ",") {
		if label != "" {
			family.Labels = append(family.Labels, label)
		}
	}
	return family, nil
}

var constLabel = regexp.MustCompile(`([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*"`)

// typeOf tells the type of a collector's family; of a collector of one's own, that says nothing, the name tells.
func typeOf(c prometheus.Collector, name string) dto.MetricType {
	switch c := c.(type) {
	case *prometheus.CounterVec:
		return dto.MetricType_COUNTER
	case *prometheus.GaugeVec:
		return dto.MetricType_GAUGE
	case *prometheus.HistogramVec:
		return dto.MetricType_HISTOGRAM
	case prometheus.Metric:
		var written dto.Metric
		if err := c.Write(&written); err == nil {
			return typeOfWritten(&written)
		}
	}
	if strings.HasSuffix(name, "_total") {
		return dto.MetricType_COUNTER
	}
	return dto.MetricType_GAUGE
}

func typeOfWritten(m *dto.Metric) dto.MetricType {
	switch {
	case m.Counter != nil:
		return dto.MetricType_COUNTER
	case m.Histogram != nil:
		return dto.MetricType_HISTOGRAM
	default:
		return dto.MetricType_GAUGE
	}
}

// printFamilies writes the families as a table of the documentation, or as lines for people.
func printFamilies(w io.Writer, families []Family, markdown bool) {
	line := "%s %s%s\n    %s\n"
	if markdown {
		line = "| `%[1]s` | %[2]s | %[3]s | %[4]s |\n"
		fmt.Fprint(w, "| metric | type | labels | what it is |\n|---|---|---|---|\n")
	}
	for _, f := range families {
		labels := strings.Join(f.Labels, ", ")
		if !markdown && labels != "" {
			labels = " {" + labels + "}"
		}
		fmt.Fprintf(w, line, f.Name, strings.ToLower(f.Type.String()), labels, strings.ReplaceAll(f.Help, "|", `\|`))
	}
}
