package index

import (
	"bytes"
	"encoding/json"
	"time"
)

// Columns of the index, in the order of its files. Those from errorColumn on are of
// the outcome.
const (
	agentColumn = iota
	instanceColumn
	ownerColumn
	humanColumn // how people read the human
	subColumn
	sessionColumn
	purposeColumn
	actionColumn
	serviceColumn
	accessColumn
	resourceColumn
	methodColumn
	hostColumn
	resultColumn
	policyColumn
	credentialColumn
	alarmColumn
	errorColumn
	statusColumn
	columns
)

// columnNames are those by which people select and group; the subject of a human
// belongs to the field human.
var columnNames = [columns]string{"agent", "instance", "owner", "human", "sub", "session", "purpose", "action", "service", "access",
	"resource", "method", "host", "result", "policy", "credential", "alarm", "error", "status"}

// entry is what the index keeps of one line. Its texts point into the line, or are
// copies where the line had escapes in them.
type entry struct {
	id, event   []byte
	text        [columns][]byte
	when, email []byte
	time        int64 // microseconds since 1970
	multi       bool  // the request is several, or has several credentials
}

// section is the object of a line that is being read.
type section int

const (
	top section = iota
	agentSection
	humanSection
	actionSection
	resourceSection
	requestSection
	decisionSection
	credentialSection
	outcomeSection
)

// read takes from a line what the index keeps, and reports whether the line is an
// event. It takes all JSON that the log writes, and refuses what it does not know
// rather than guess.
func (e *entry) read(line []byte) bool {
	*e = entry{}
	s := scanner{b: line}
	if !s.object(e, top) || len(e.id) == 0 || len(e.event) == 0 || e.time == 0 {
		return false
	}
	s.space()
	if s.i != len(s.b) {
		return false
	}
	e.text[humanColumn] = e.email
	if len(e.email) == 0 {
		e.text[humanColumn] = e.text[subColumn]
	}
	return true
}

// scanner reads JSON from b, from i on.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\r' || s.b[s.i] == '\n') {
		s.i++
	}
}

// take reads one byte if it is c.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// object reads an object and files its members away.
func (s *scanner) object(e *entry, in section) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		key, ok := s.text()
		if !ok || !s.take(':') || !s.member(e, in, key) {
			return false
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// member reads the value of one member.
func (s *scanner) member(e *entry, in section, key []byte) bool {
	if in == top {
		if below := sectionOf(key); below != top {
			return s.object(e, below)
		}
		if string(key) == "actions" {
			e.multi = true
		}
	}
	if in == credentialSection && string(key) == "beside" {
		e.multi = true
	}
	to := e.place(in, key)
	if to == nil {
		return s.skip(0)
	}
	s.space()
	start := s.i
	if in == outcomeSection && string(key) == "status" {
		ok := s.skip(0)
		*to = s.b[start:s.i]
		return ok
	}
	text, ok := s.text()
	*to = text
	if ok && in == top && string(key) == "time" {
		e.time, ok = moment(text)
	}
	return ok
}

func sectionOf(key []byte) section {
	switch string(key) {
	case "agent":
		return agentSection
	case "human":
		return humanSection
	case "action":
		return actionSection
	case "resource":
		return resourceSection
	case "request":
		return requestSection
	case "decision":
		return decisionSection
	case "credential":
		return credentialSection
	case "outcome":
		return outcomeSection
	}
	return top
}

// place is where the value of a member goes, or nil.
func (e *entry) place(in section, key []byte) *[]byte {
	switch in {
	case top:
		return e.placeTop(key)
	case agentSection:
		switch string(key) {
		case "id":
			return &e.text[agentColumn]
		case "instance":
			return &e.text[instanceColumn]
		case "owner":
			return &e.text[ownerColumn]
		}
	case humanSection:
		switch string(key) {
		case "sub":
			return &e.text[subColumn]
		case "email":
			return &e.email
		}
	case actionSection:
		switch string(key) {
		case "id":
			return &e.text[actionColumn]
		case "service":
			return &e.text[serviceColumn]
		case "access":
			return &e.text[accessColumn]
		}
	}
	return e.placeBelow(in, key)
}

func (e *entry) placeTop(key []byte) *[]byte {
	switch string(key) {
	case "time":
		return &e.when
	case "id":
		return &e.id
	case "event":
		return &e.event
	case "session":
		return &e.text[sessionColumn]
	case "purpose":
		return &e.text[purposeColumn]
	case "alarm":
		return &e.text[alarmColumn]
	}
	return nil
}

func (e *entry) placeBelow(in section, key []byte) *[]byte {
	switch {
	case in == resourceSection && string(key) == "id":
		return &e.text[resourceColumn]
	case in == requestSection && string(key) == "method":
		return &e.text[methodColumn]
	case in == requestSection && string(key) == "host":
		return &e.text[hostColumn]
	case in == decisionSection && string(key) == "result":
		return &e.text[resultColumn]
	case in == decisionSection && string(key) == "policy":
		return &e.text[policyColumn]
	case in == credentialSection && string(key) == "id":
		return &e.text[credentialColumn]
	case in == outcomeSection && string(key) == "status":
		return &e.text[statusColumn]
	case in == outcomeSection && string(key) == "error":
		return &e.text[errorColumn]
	}
	return nil
}

// text reads a string.
func (s *scanner) text() ([]byte, bool) {
	s.space()
	start := s.i
	if !s.quoted() {
		return nil, false
	}
	raw := s.b[start+1 : s.i-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw, true
	}
	var plain string
	if json.Unmarshal(s.b[start:s.i], &plain) != nil {
		return nil, false
	}
	return []byte(plain), true
}

// quoted passes a string.
func (s *scanner) quoted() bool {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return false
	}
	for s.i++; s.i < len(s.b); {
		n := bytes.IndexByte(s.b[s.i:], '"')
		if n < 0 {
			return false
		}
		end := s.i + n
		slashes := 0
		for end-slashes > s.i && s.b[end-slashes-1] == '\\' {
			slashes++
		}
		s.i = end + 1
		if slashes%2 == 0 {
			return true
		}
	}
	return false
}

// maxDepth bounds how deep values of a line may lie within one another.
const maxDepth = 100

// skip passes a value.
func (s *scanner) skip(depth int) bool {
	s.space()
	if s.i >= len(s.b) || depth > maxDepth {
		return false
	}
	switch s.b[s.i] {
	case '"':
		return s.quoted()
	case '{':
		return s.skipAll('{', '}', depth)
	case '[':
		return s.skipAll('[', ']', depth)
	}
	start := s.i
	for s.i < len(s.b) && bytes.IndexByte([]byte(",}] \t\r\n\"{[:"), s.b[s.i]) < 0 {
		s.i++
	}
	return s.i > start
}

// skipAll passes an object or an array.
func (s *scanner) skipAll(opens, ends byte, depth int) bool {
	s.take(opens)
	if s.take(ends) {
		return true
	}
	for {
		if opens == '{' {
			s.space()
			if !s.quoted() || !s.take(':') {
				return false
			}
		}
		if !s.skip(depth + 1) {
			return false
		}
		if s.take(ends) {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// moment reads a time as the log writes it, or in any other form of RFC 3339.
func moment(b []byte) (int64, bool) {
	const form = "2006-01-02T15:04:05.000000Z"
	if len(b) != len(form) || b[len(b)-1] != 'Z' || b[10] != 'T' || b[19] != '.' {
		t, err := time.Parse(time.RFC3339Nano, string(b))
		return t.UnixMicro(), err == nil
	}
	n := func(from, to int) int {
		v := 0
		for _, c := range b[from:to] {
			if c < '0' || c > '9' {
				return -1 << 30
			}
			v = v*10 + int(c-'0')
		}
		return v
	}
	y, mo, d, h, mi, sec, us := n(0, 4), n(5, 7), n(8, 10), n(11, 13), n(14, 16), n(17, 19), n(20, 26)
	if y < 1 || mo < 1 || mo > 12 || d < 1 || d > 31 || h < 0 || h > 23 || mi < 0 || mi > 59 || sec < 0 || sec > 60 || us < 0 {
		return 0, false
	}
	return days(y, mo, d)*86400_000_000 + int64((h*60+mi)*60+sec)*1_000_000 + int64(us), true
}

// days counts from 1970-01-01 in the proleptic Gregorian calendar.
func days(y, m, d int) int64 {
	if m <= 2 {
		y, m = y-1, m+12
	}
	return int64(365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + d - 1 - 719468)
}
