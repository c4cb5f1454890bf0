package describe

import (
	"bytes"
	"encoding/json"
	"strings"

	"chaperone/policy/action"
)

// Format writes a service as a catalogue file: its head, then one line a path or
// key, in order, so that a change of the source shows as lines changed.
func Format(s *action.Service) ([]byte, error) {
	var out bytes.Buffer
	if err := format(&out, s, ""); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

func format(out *bytes.Buffer, s *action.Service, indent string) error {
	head := *s
	head.Paths, head.Ops, head.APIs = nil, nil, nil
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(&head); err != nil {
		return err
	}
	var members []string
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b.Bytes(), &fields); err != nil {
		return err
	}
	for d := json.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		t, err := d.Token()
		if err != nil {
			break
		}
		if name, ok := t.(string); ok && fields[name] != nil {
			members = append(members, quote(name)+": "+string(fields[name]))
			delete(fields, name)
			var skip json.RawMessage
			if err := d.Decode(&skip); err != nil {
				return err
			}
		}
	}
	if len(s.APIs) > 0 {
		var parts bytes.Buffer
		parts.WriteString(quote("apis") + ": {")
		for i, name := range sorted(s.APIs) {
			if i > 0 {
				parts.WriteByte(',')
			}
			parts.WriteString("\n" + indent + "  " + quote(name) + ": ")
			if err := format(&parts, s.APIs[name], indent+"  "); err != nil {
				return err
			}
		}
		parts.WriteString("\n" + indent + " }")
		members = append(members, parts.String())
	}
	if len(s.Ops) > 0 {
		members = append(members, quote("ops")+": "+lines(s.Ops, indent, quote))
	}
	if len(s.Paths) > 0 {
		members = append(members, quote("paths")+": "+lines(s.Paths, indent, func(methods map[string]string) string {
			var rows []string
			for _, m := range sorted(methods) {
				rows = append(rows, quote(m)+": "+quote(methods[m]))
			}
			return "{" + strings.Join(rows, ", ") + "}"
		}))
	}
	out.WriteString("{\n" + indent + " " + strings.Join(members, ",\n"+indent+" ") + "\n" + indent + "}")
	return nil
}

// lines is an object with one line a member.
func lines[V any](m map[string]V, indent string, value func(V) string) string {
	var rows []string
	for _, k := range sorted(m) {
		rows = append(rows, "\n"+indent+"  "+quote(k)+": "+value(m[k]))
	}
	return "{" + strings.Join(rows, ",") + "\n" + indent + " }"
}

// quote is a JSON string of text that holds nothing to escape but quotes.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
