package credential

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"time"
)

// storedHandle is a handle in the store.
type storedHandle struct {
	Credential string    `json:"credential"`
	Service    string    `json:"service"`
	Session    string    `json:"session"`
	Expires    time.Time `json:"expires"`
	Sum        string    `json:"sum"`
	Limit      int64     `json:"limit,omitzero"` // uses; 0: any number
	Of         string    `json:"of,omitzero"`
}

// toldHandle is a handle as it was read, whose texts are parts of that: most of them are
// known already.
type toldHandle struct {
	credential, service, session, of []byte
	expires                          time.Time
	limit                            int64
	sum                              [sha256.Size]byte
}

// parseHandle reads a handle as the store keeps it. A store may hold a million, which
// are read while a program starts: one in the form in which they are written is read
// in one pass, a fifth of the time of encoding/json, and any other by that.
func parseHandle(value []byte) (t toldHandle, err error) {
	if scanHandle(value, &t) {
		return t, nil
	}
	var s storedHandle
	if err = json.Unmarshal(value, &s); err != nil {
		return t, err
	}
	if len(s.Sum) != hex.EncodedLen(len(t.sum)) {
		return t, hex.ErrLength
	}
	t = s.told()
	_, err = hex.Decode(t.sum[:], []byte(s.Sum))
	return t, err
}

// told is the handle as if it had been read, without its sum.
func (s *storedHandle) told() toldHandle {
	return toldHandle{credential: []byte(s.Credential), service: []byte(s.Service), session: []byte(s.Session), of: []byte(s.Of), expires: s.Expires, limit: s.Limit}
}

// scanHandle reports whether value is what json.Marshal makes of a storedHandle whose
// texts need no escapes, and Of is empty.
func scanHandle(value []byte, t *toldHandle) bool {
	var expires, digits []byte
	rest, ok := value, true
	text := func(before string) (out []byte) {
		if ok {
			out, rest, ok = scanText(rest, before)
		}
		return out
	}
	t.credential, t.service, t.session = text(`{"credential":"`), text(`,"service":"`), text(`,"session":"`)
	expires, digits = text(`,"expires":"`), text(`,"sum":"`)
	if !ok || len(digits) != hex.EncodedLen(len(t.sum)) {
		return false
	}
	if _, err := hex.Decode(t.sum[:], digits); err != nil || t.expires.UnmarshalText(expires) != nil {
		return false
	}
	if limit, found := bytes.CutPrefix(rest, []byte(`,"limit":`)); found {
		number, _, _ := bytes.Cut(limit, []byte("}"))
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != string(number) {
			return false
		}
		t.limit, rest = n, limit[len(number):]
	}
	return string(rest) == "}"
}

// scanText cuts the text off that follows what is expected before it, up to its
// closing quote. Texts with escapes, or beyond ASCII, are left to encoding/json.
func scanText(b []byte, before string) (text, rest []byte, ok bool) {
	if b, ok = bytes.CutPrefix(b, []byte(before)); !ok {
		return nil, nil, false
	}
	for i, c := range b {
		switch {
		case c == '"':
			return b[:i], b[i+1:], true
		case c == '\\' || c < ' ' || c > '~':
			return nil, nil, false
		}
	}
	return nil, nil, false
}
