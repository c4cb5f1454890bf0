package httpsig

import (
	"errors"

	"github.com/dunglas/httpsfv"
)

var errInput = errors.New("Signature-Input cannot be read")

// KeyIDs returns the key ids of all signatures that a request has, one each, as its
// field Signature-Input names them (section 4.1); an empty one where a signature names
// none.
func KeyIDs(values []string) ([]string, error) {
	d, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return nil, errInput
	}
	ids := make([]string, 0, 1)
	for _, label := range d.Names() {
		m, _ := d.Get(label)
		list, ok := m.(httpsfv.InnerList)
		if !ok || list.Params == nil {
			return nil, errInput
		}
		v, given := list.Params.Get("keyid")
		id, ok := v.(string)
		if given && !ok {
			return nil, errInput
		}
		ids = append(ids, id)
	}
	return ids, nil
}
