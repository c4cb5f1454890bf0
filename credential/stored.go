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

// parseHandle reads a handle as the store keeps it. A store may hold a million, which
// are read while a program starts: one in the form in which they are written is read
// in one pass, a fifth of the time of encoding/json, and any other by that.
func parseHandle(value []byte) (s storedHandle, sum [sha256.Size]byte, err error) {
	if scanHandle(value, &s, &sum) {
		return s, sum, nil
	}
	s = storedHandle{}
	if err = json.Unmarshal(value, &s); err != nil {
		return s, sum, err
	}
	if len(s.Sum) != hex.EncodedLen(len(sum)) {
		return s, sum, hex.ErrLength
	}
	_, err = hex.Decode(sum[:], []byte(s.Sum))
	return s, sum, err
}

// scanHandle reports whether value is what json.Marshal makes of a storedHandle whose
// texts need no escapes, and Of is empty. It leaves s.Sum empty: sum is what it says.
func scanHandle(value []byte, s *storedHandle, sum *[sha256.Size]byte) bool {
	var expires, digits []byte
	rest, ok := value, true
	text := func(before string) (out []byte) {
		if ok {
			out, rest, ok = scanText(rest, before)
		}
		return out
	}
	credential, service, session := text(`{"credential":"`), text(`,"service":"`), text(`,"session":"`)
	expires, digits = text(`,"expires":"`), text(`,"sum":"`)
	if !ok || len(digits) != hex.EncodedLen(len(sum)) {
		return false
	}
	if _, err := hex.Decode(sum[:], digits); err != nil || s.Expires.UnmarshalText(expires) != nil {
		return false
	}
	if limit, found := bytes.CutPrefix(rest, []byte(`,"limit":`)); found {
		number, _, _ := bytes.Cut(limit, []byte("}"))
		n, err := strconv.ParseInt(string(number), 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != string(number) {
			return false
		}
		s.Limit, rest = n, limit[len(number):]
	}
	s.Credential, s.Service, s.Session = string(credential), string(service), string(session)
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
