package action

import "strings"

// Effects are what an action leaves behind, as far as its catalogue tells.
type Effects struct {
	Creates bool
	// ID says where the id of what is created stands: a JSON pointer (RFC 6901) into
	// the answer ("/id"; a part * is every member of a list), body: and a pointer into the request's body or the name in its
	// form ("body:/name"), or the request's own parameters ("{owner}/{repo}"). Empty: not known.
	ID string
	// Undo is the action that removes what is created, or empty.
	Undo string
	// Deletes says that the action removes something.
	Deletes bool
	// Lasting says that what is created acts by itself or lets somebody in after the
	// session has ended: keys, hooks, schedules, invitations, OAuth apps.
	Lasting bool
	// Expensive says that the service charges for it by use.
	Expensive bool
	// Mints are where the answer hands out a credential: JSON pointers, which name the
	// fields of an answer that is a form as well, or aws for keys as AWS's token service
	// answers with them.
	Mints []string
}

// The marks behind an operation's level in a catalogue that say what it leaves behind.
const (
	MarkCreates   = "creates" // also creates=PLACE, see [Effects]
	MarkUndo      = "undo="
	MarkDeletes   = "deletes"
	MarkLasting   = "lasting"
	MarkExpensive = "expensive"
	// MarkOn, with names of the service's arguments behind it, says which of them the
	// operation takes. Others in a request say nothing of what it is on.
	MarkOn = "on="
	// MarkUpload says that the operation takes files in a multipart body, as the vendor
	// describes it: one that is too long to be looked into keeps its name, though a
	// framework might find another method in it. For services that are known not to.
	MarkUpload = "upload"
	// MarkSensitive says that what is read is, or is about, keys, secrets or invitations.
	MarkSensitive = "sensitive"
)

// effects reads the marks of one of the part's operations.
func effects(service, prefix string, marks []string) Effects {
	var e Effects
	for _, m := range marks {
		name, value, _ := strings.Cut(m, "=")
		switch name {
		case MarkCreates:
			e.Creates, e.ID = true, value
		case "undo":
			e.Undo = service + ":" + prefix + value
		case MarkDeletes:
			e.Deletes = true
		case MarkLasting:
			e.Lasting = true
		case MarkExpensive:
			e.Expensive = true
		}
	}
	e.Mints = mints(marks)
	return e
}

// MarkMints says where an answer hands out a credential: mints=/token,/refresh_token.
const MarkMints = "mints"

func mints(marks []string) []string {
	for _, m := range marks {
		if name, value, _ := strings.Cut(m, "="); name == MarkMints {
			return strings.Split(value, ",")
		}
	}
	return nil
}

// Effects returns what the action of that id leaves behind. Several requests that
// are one action may differ in what they create; the first that creates speaks.
func (c *Catalogue) Effects(id string) (Effects, bool) {
	service, _, _ := strings.Cut(id, ":")
	s := c.byName[service]
	if s == nil {
		return Effects{}, false
	}
	found := false
	var e Effects
	for _, row := range s.Rows() {
		if row.Action == id && (!found || row.Effects.Creates && !e.Creates) {
			found, e = true, row.Effects
		}
	}
	return e, found
}
