package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"chaperone/cmd/chaperone/settings"
	"chaperone/credential"
	"chaperone/credential/source"
)

// outside is what credentials reach beyond the store: token endpoints, by the same way
// as services, and the sources of secrets.
func (r *road) outside() credential.Outside {
	way := r.upstream.Own()
	o := credential.Outside{HTTP: way, Sources: map[string]source.Fetcher{
		"env": source.Env{Lookup: os.LookupEnv}, "file": source.File{}, "command": source.Command{},
	}}
	s := &r.s.Sources
	if s.Vault.Address != "" {
		o.Sources["vault"] = &source.Vault{HTTP: way, Address: s.Vault.Address, Namespace: s.Vault.Namespace, Token: remembered(s.Vault.Token)}
	}
	if s.AWS.Region != "" {
		keys := remembered(s.AWS.Keys)
		o.Sources["aws-sm"] = &source.Amazon{HTTP: way, Region: s.AWS.Region, Service: "secretsmanager", Keys: keys}
		o.Sources["aws-ssm"] = &source.Amazon{HTTP: way, Region: s.AWS.Region, Service: "ssm", Keys: keys}
	}
	if s.Google.Token.File != "" || s.Google.Token.Env != "" || len(s.Google.Token.Command) > 0 {
		o.Sources["gcp-sm"] = &source.Google{HTTP: way, Token: remembered(s.Google.Token)}
	}
	return o
}

// referenceLife is how long what a reference led to is used.
const referenceLife = time.Minute

// remembered reads a reference at most once a minute.
func remembered(ref settings.Reference) func(context.Context) (credential.Secret, error) {
	var mu sync.Mutex
	var last credential.Secret
	var until time.Time
	return func(ctx context.Context) (credential.Secret, error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Now().Before(until) {
			return last, nil
		}
		b, err := readReference(ctx, ref)
		if err != nil {
			return credential.Secret{}, err
		}
		last, until = credential.NewSecret(b), time.Now().Add(referenceLife)
		return last, nil
	}
}

// readReference reads what a reference of the configuration leads to.
func readReference(ctx context.Context, ref settings.Reference) ([]byte, error) {
	switch {
	case ref.Env != "":
		text, ok := os.LookupEnv(ref.Env)
		if !ok {
			return nil, fmt.Errorf("variable %s is not set", ref.Env)
		}
		return []byte(text), nil
	case len(ref.Command) > 0:
		return exec.CommandContext(ctx, ref.Command[0], ref.Command[1:]...).Output()
	}
	return os.ReadFile(ref.File)
}
