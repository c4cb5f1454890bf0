package main

import (
	"context"
	"os"
	"time"

	"chaperone/cmd/chaperone/settings"
	"chaperone/credential"
	"chaperone/credential/source"
)

// outside is what credentials reach beyond the store: token endpoints, by the same way
// as services, and the sources of secrets.
func (r *road) outside() credential.Outside {
	way := r.upstream.Own()
	o := credential.Outside{HTTP: way, Showing: r.upstream.OwnShowing, SourceTime: r.s.Sources.Timeout, TokenTime: r.s.Sources.TokenTimeout, Now: r.shared.clock, Told: r.told, Sources: map[string]source.Fetcher{
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
	if s.Google.Token.Named() {
		o.Sources["gcp-sm"] = &source.Google{HTTP: way, Token: remembered(s.Google.Token)}
	}
	return o
}

// referenceLife is how long what a reference led to is used.
const referenceLife = time.Minute

// remembered reads a reference at most once a minute. Whoever waits for another's look
// waits no longer than its own ctx.
func remembered(ref settings.Reference) func(context.Context) (credential.Secret, error) {
	turn := make(chan struct{}, 1)
	var last credential.Secret
	var until time.Time
	return func(ctx context.Context) (credential.Secret, error) {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return credential.Secret{}, ctx.Err()
		}
		if time.Now().Before(until) {
			return last, nil
		}
		b, err := refer(ctx, ref)
		if err != nil {
			return credential.Secret{}, err
		}
		last, until = credential.NewSecret(b), time.Now().Add(referenceLife)
		return last, nil
	}
}

// told lets operators know of a credential that cannot be used, once, and when it works
// again.
func (r *road) told(id string, t *credential.Trouble) {
	if t == nil {
		r.logger.Info("credential works again", "credential", id)
		return
	}
	r.logger.Warn("credential cannot be used; requests with it are refused", "credential", id, "trouble", t.What, "hint", t.Hint)
}
