package main

import (
	"os"

	"chaperone/credential"
	"chaperone/credential/source"
)

// outside is what credentials reach beyond the store: token endpoints, by the same way
// as services, and the sources of secrets.
func (r *road) outside() credential.Outside {
	return credential.Outside{HTTP: r.upstream.Own(), Sources: map[string]source.Fetcher{
		"env": source.Env{Lookup: os.LookupEnv}, "file": source.File{}, "command": source.Command{},
	}}
}
