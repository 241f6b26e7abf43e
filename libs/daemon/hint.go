package daemon

import (
	"regexp"
	"strings"
)

// serviceLinkHint goes with variables that no operator wrote.
const serviceLinkHint = "Kubernetes makes such variables for a Service of that name: set enableServiceLinks: false in the pod"

// serviceLink matches the names that Kubernetes derives from a Service, beside NAME_PORT, which may be ours.
var serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)

// isServiceLink tells whether a variable is one that Kubernetes puts into each container: AMQP_PORT=tcp://10.0.0.7:5672.
func isServiceLink(name, text string) bool {
	for _, scheme := range []string{"tcp://", "udp://", "sctp://"} {
		if strings.HasPrefix(text, scheme) {
			return true
		}
	}
	return serviceLink.MatchString(name)
}

// suggestion is the end of a sentence about an unknown name: the known name that is nearest to it, or nothing when none is near.
func suggestion(name string, known map[string]bool) string {
	best, distance := "", 1+max(2, len(name)/4)
	for candidate := range known {
		d := editDistance(name, candidate)
		if d < distance || (d == distance && best != "" && candidate < best) {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// editDistance is Levenshtein's: how many bytes must be put in, taken out or changed to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// plainName shows a foreign name as it is when that is harmless, else quoted and cut.
func plainName(name string) string {
	if plain.MatchString(name) && len(name) <= quoteLimit {
		return name
	}
	return quote(name)
}

var plain = regexp.MustCompile(`^[\w.-]+$`)
