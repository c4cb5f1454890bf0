package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"chaperone/cmd/chaperone/problem"
	"chaperone/cmd/chaperone/settings"
	"chaperone/policy/opa"
	"chaperone/policy/opa/remote"
	"chaperone/rego"
)

// built says what is in a bundle that was made.
type built struct {
	File     string `json:"file"`
	Revision string `json:"revision"`
	Bytes    int    `json:"bytes"`
	Signed   bool   `json:"signed"`
}

func (a *app) policyBuild() *cobra.Command {
	var path, output, revision string
	var key settings.Reference
	var signing remote.Signing
	c := &cobra.Command{
		Use: "build --output FILE", Short: "Make a bundle of the policy for a server of bundles", Args: noArguments,
		Long: `Make a bundle of the policy, with its grants, for a server of bundles, after its check.
A private key in PEM, or the secret of an HMAC, signs it under the key id policy. Grants
stand in it as data; tests, cases, examples and the schema do not.`,
		Example: "  chaperone policy build --output bundle.tar.gz --key-file policy-private.pem",
		RunE: func(c *cobra.Command, _ []string) error {
			if output == "" {
				return problem.Misuse("policy build wants --output", "name the file, such as bundle.tar.gz")
			}
			s, err := a.settings()
			if err != nil {
				return err
			}
			files, err := candidate(s, path)
			if err != nil {
				return err
			}
			if signing.Key, err = secretText(c.Context(), "the key of the bundle", key); err != nil {
				return err
			}
			out, err := buildBundle(c.Context(), s, files, revision, signing, output)
			if err != nil {
				return err
			}
			return a.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "%s holds policy %s in %d bytes%s\n", out.File, out.Revision, out.Bytes, map[bool]string{true: ", signed", false: ", not signed"}[out.Signed])
			})
		},
	}
	f := c.Flags()
	f.StringVar(&path, "policy", "", "the policy at `PATH` instead of the configuration's")
	f.StringVar(&output, "output", "", "`FILE` that is written")
	f.StringVar(&revision, "revision", "", "`NAME` of this state, such as a commit; a digest of the files when left out")
	f.StringVar(&key.File, "key-file", "", "sign with the private key in PEM, or the secret, in `FILE`")
	f.StringVar(&key.Env, "key-env", "", "sign with what the variable `NAME` holds")
	f.StringVar(&signing.Algorithm, "algorithm", "RS256", "of the signature: `RS256`, ES256, HS256 and such")
	return c
}

// buildBundle writes a bundle of a policy that passes its check.
func buildBundle(ctx context.Context, s *settings.Settings, files fs.FS, revision string, signing remote.Signing, output string) (*built, error) {
	catalogue, err := loadCatalogue(s)
	if err != nil {
		return nil, err
	}
	faults, err := opa.Check(opa.CheckOptions{FS: files, Schema: rego.InputSchema, Names: names{catalogue}})
	if err != nil {
		return nil, err
	}
	if faults = faults.Errors(); len(faults) > 0 {
		return nil, problem.Failure(fmt.Errorf("the policy has %s:\n%w", count(len(faults), "fault"), faults), "`chaperone policy check` shows each in its line")
	}
	if revision == "" {
		e, err := opa.Load(opa.Options{FS: files, Schema: rego.InputSchema})
		if err != nil {
			return nil, err
		}
		revision = e.Revision()
		e.Close()
	}
	var b bytes.Buffer
	if err := remote.Build(ctx, &b, files, revision, signing); err != nil {
		return nil, problem.Failure(err, "see --key-file and --algorithm")
	}
	if err := os.WriteFile(output, b.Bytes(), 0o644); err != nil {
		return nil, fmt.Errorf("writing bundle: %w", err)
	}
	return &built{File: output, Revision: revision, Bytes: b.Len(), Signed: signing.Key != ""}, nil
}
