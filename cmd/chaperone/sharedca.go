package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"chaperone/certs"
	"chaperone/credential"
	"chaperone/store"
)

// sharedCA is the authority of the replicas that have none of their own, as the store
// keeps it: agents that trust one of them trust all.
type sharedCA struct {
	Cert   []byte `json:"cert"`   // PEM
	Sealed []byte `json:"sealed"` // its key in PEM, under the installation key
}

const sharedCAName = "installation/ca"

// openCA opens the authority: the operator's; else that of the state directory, which is
// that of the replicas when they have one, and becomes theirs when they have none.
func (r *road) openCA(ctx context.Context, key credential.Key) (*certs.Authority, error) {
	if r.s.CA.Cert != "" {
		return certs.Files(r.s.CA.Cert, r.s.CA.Key)
	}
	if r.shared.alone {
		return certs.Open(r.s.State)
	}
	shared, version, err := r.loadCA(ctx, key)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, certs.ErrCA) { // none, or it has expired
		if err = r.saveCA(ctx, key, version); err == nil || errors.Is(err, store.ErrConflict) { // another was first
			shared, _, err = r.loadCA(ctx, key)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sharing it: %w", err)
	}
	own, err := certs.Open(r.s.State)
	if err == nil && !bytes.Equal(own.PEM(), shared) {
		r.logger.Warn("this replica keeps a CA of its own, which agents of the others do not trust", "state", r.s.State,
			"hint", "have agents trust both; or move ca.pem and ca.key out of its state directory and start it again, and it takes the others' CA; or give all replicas the same ca: in config.yaml")
	}
	return own, err
}

// loadCA takes over the replicas' authority where there is none in the state directory,
// and returns its certificate.
func (r *road) loadCA(ctx context.Context, key credential.Key) (cert []byte, version uint64, err error) {
	e, err := r.shared.kv.Load(ctx, sharedCAName)
	if err != nil {
		return nil, 0, err
	}
	var ca sharedCA
	if err := json.Unmarshal(e.Value, &ca); err != nil {
		return nil, e.Version, fmt.Errorf("%s: %w", sharedCAName, err)
	}
	pem, err := key.Open(ca.Sealed, sharedCAName)
	if err != nil {
		return nil, e.Version, err
	}
	a, err := certs.Load(ca.Cert, pem)
	if err != nil {
		return nil, e.Version, err
	}
	_, err = certs.Adopt(r.s.State, ca.Cert, pem)
	return a.PEM(), e.Version, err
}

// saveCA makes the authority of the state directory that of the replicas.
func (r *road) saveCA(ctx context.Context, key credential.Key, version uint64) error {
	if _, err := certs.Open(r.s.State); err != nil {
		return err
	}
	cert, pem, err := certs.Pair(r.s.State)
	if err != nil {
		return err
	}
	sealed, err := key.Seal(pem, sharedCAName)
	if err != nil {
		return err
	}
	b, err := json.Marshal(sharedCA{Cert: cert, Sealed: sealed})
	if err != nil {
		return err
	}
	_, err = r.shared.kv.Save(ctx, store.Entry{Name: sharedCAName, Value: b, Version: version})
	return err
}
