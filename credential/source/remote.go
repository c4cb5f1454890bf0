package source

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"chaperone/credential/internal/secret"
	"chaperone/credential/sigv4"
)

// maxAnswer bounds what is read of a remote source's answer, in bytes.
const maxAnswer = 1 << 20

// errNoWay is what a remote source says that was given no way out.
var errNoWay = errors.New("there is no way out to it")

// call sends one request and decodes the answer. What an error tells of the answer is
// its status alone: its body may repeat what was sent.
func call(rt http.RoundTripper, r *http.Request, out any) error {
	if rt == nil {
		return errNoWay
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return errors.New("it cannot be reached")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("it answers %d", resp.StatusCode)
	case err != nil:
		return errors.New("its answer ends early")
	case out == nil || resp.StatusCode == http.StatusNoContent:
		return nil
	}
	if json.Unmarshal(b, out) != nil {
		return errors.New("its answer is not JSON")
	}
	return nil
}

// Vault reads HashiCorp Vault and OpenBao: vault:PATH#FIELD, where PATH is that of the
// API behind /v1/, such as secret/data/github for version 2 of the KV engine, or
// database/creds/agent for credentials that are made when they are asked for. Leases
// are renewed for as long as the server allows, and then a new secret is asked for
// (developer.hashicorp.com/vault/api-docs).
type Vault struct {
	HTTP      http.RoundTripper
	Address   string // https://…
	Namespace string
	// Token returns the token to show, as it is now.
	Token func(context.Context) (secret.Secret, error)

	leases leases
}

var vaultPath = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.=@+-]+)+$`)

// Check implements [Fetcher].
func (*Vault) Check(ref string) error {
	path, name, _ := strings.Cut(ref, "#")
	if !vaultPath.MatchString(path) || strings.Contains(path, "..") || strings.ContainsAny(name, "# \t\n") {
		return fmt.Errorf("%w: write vault:PATH#FIELD, such as vault:secret/data/github#token", ErrForm)
	}
	return nil
}

// answer is what both engines and leases answer.
type vaultAnswer struct {
	LeaseID   string          `json:"lease_id"`
	Duration  int             `json:"lease_duration"` // seconds
	Renewable bool            `json:"renewable"`
	Data      json.RawMessage `json:"data"`
}

// Fetch implements [Fetcher].
func (v *Vault) Fetch(ctx context.Context, ref string) (Fetched, error) {
	path, name, _ := strings.Cut(ref, "#")
	held := v.leases.of(path)
	if held != nil && held.Renewable {
		got, err := v.ask(ctx, http.MethodPut, "sys/leases/renew", map[string]string{"lease_id": held.LeaseID})
		if err == nil && got.Duration > 0 {
			held.Duration, held.Renewable = got.Duration, got.Renewable
			return v.give(path, name, held)
		}
		// The lease is at its end, or was revoked: another is asked for.
	}
	got, err := v.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return Fetched{}, err
	}
	return v.give(path, name, got)
}

// give takes the field out of what was answered. Of a secret with a lease two thirds
// of its time are used before it is renewed.
func (v *Vault) give(path, name string, a *vaultAnswer) (Fetched, error) {
	data := a.Data
	var versioned struct {
		Data     json.RawMessage `json:"data"`
		Metadata json.RawMessage `json:"metadata"`
	}
	if json.Unmarshal(data, &versioned) == nil && versioned.Data != nil && versioned.Metadata != nil {
		data = versioned.Data // version 2 of the KV engine
	}
	got, err := field(data, name)
	if err != nil {
		return Fetched{}, err
	}
	if a.LeaseID != "" {
		v.leases.keep(path, a)
	}
	if a.Duration > 0 {
		got.Valid = time.Duration(a.Duration) * time.Second * 2 / 3
	}
	return got, nil
}

func (v *Vault) ask(ctx context.Context, method, path string, in any) (*vaultAnswer, error) {
	token, err := v.Token(ctx)
	if err != nil {
		return nil, errors.New("its own token is missing")
	}
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(v.Address, "/")+"/v1/"+path, &body)
	if err != nil {
		return nil, errors.New("its address cannot be read")
	}
	r.Header.Set("X-Vault-Token", strings.TrimSpace(secret.Text(token)))
	r.Header.Set("X-Vault-Request", "true")
	if v.Namespace != "" {
		r.Header.Set("X-Vault-Namespace", v.Namespace)
	}
	out := new(vaultAnswer)
	return out, call(v.HTTP, r, out)
}

// Amazon reads AWS Secrets Manager, aws-sm:ID#FIELD, and the parameter store of Systems
// Manager, aws-ssm:NAME.
type Amazon struct {
	HTTP    http.RoundTripper
	Region  string
	Service string // secretsmanager or ssm
	// Keys returns the keys to sign with, as they are now.
	Keys func(context.Context) (secret.Secret, error)
}

var amazonName = regexp.MustCompile(`^[A-Za-z0-9/_+=.@:-]+$`)

// Check implements [Fetcher].
func (*Amazon) Check(ref string) error {
	id, _, _ := strings.Cut(ref, "#")
	if !amazonName.MatchString(id) {
		return fmt.Errorf("%w: write aws-sm:ID#FIELD or aws-ssm:NAME", ErrForm)
	}
	return nil
}

// Fetch implements [Fetcher].
func (a *Amazon) Fetch(ctx context.Context, ref string) (Fetched, error) {
	id, name, _ := strings.Cut(ref, "#")
	target, in := "secretsmanager.GetSecretValue", map[string]any{"SecretId": id}
	if a.Service == "ssm" {
		target, in = "AmazonSSM.GetParameter", map[string]any{"Name": id, "WithDecryption": true}
	}
	body, err := json.Marshal(in)
	if err != nil {
		return Fetched{}, err
	}
	keys, err := a.keys(ctx)
	if err != nil {
		return Fetched{}, err
	}
	host := a.Service + "." + a.Region + ".amazonaws.com"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/", bytes.NewReader(body))
	if err != nil {
		return Fetched{}, errors.New("its region cannot be read")
	}
	r.Header = http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {target}}
	sigv4.New(&sigv4.Request{Method: r.Method, Host: host, Path: "/", Header: r.Header}, keys, a.Region, a.Service, body, time.Now())
	var got struct {
		SecretString string
		SecretBinary []byte
		Parameter    struct{ Value string }
	}
	if err := call(a.HTTP, r, &got); err != nil {
		return Fetched{}, err
	}
	text := []byte(got.SecretString + got.Parameter.Value)
	if len(text) == 0 {
		text = got.SecretBinary
	}
	return field(text, name)
}

// keys reads the keys as a JSON object in one of the forms in which AWS's tools have
// them.
func (a *Amazon) keys(ctx context.Context) (sigv4.Keys, error) {
	s, err := a.Keys(ctx)
	if err != nil {
		return sigv4.Keys{}, errors.New("its own keys are missing")
	}
	var k struct{ AccessKeyId, SecretAccessKey, SessionToken string }
	if err := json.Unmarshal(secret.Reveal(s), &k); err != nil || k.AccessKeyId == "" || k.SecretAccessKey == "" {
		return sigv4.Keys{}, errors.New("its own keys are not as credential_process prints them")
	}
	return sigv4.Keys{ID: k.AccessKeyId, Secret: secret.New(k.SecretAccessKey), Token: secret.New(k.SessionToken)}, nil
}

// Google reads Google Secret Manager: gcp-sm:projects/P/secrets/S/versions/V#FIELD.
type Google struct {
	HTTP http.RoundTripper
	// Token returns an access token to show, as it is now.
	Token func(context.Context) (secret.Secret, error)
}

var googleName = regexp.MustCompile(`^projects/[a-z0-9.:-]+/secrets/[A-Za-z0-9_-]+/versions/[a-z0-9]+$`)

// Check implements [Fetcher].
func (*Google) Check(ref string) error {
	name, _, _ := strings.Cut(ref, "#")
	if !googleName.MatchString(name) {
		return fmt.Errorf("%w: write gcp-sm:projects/P/secrets/S/versions/latest", ErrForm)
	}
	return nil
}

// Fetch implements [Fetcher].
func (g *Google) Fetch(ctx context.Context, ref string) (Fetched, error) {
	name, part, _ := strings.Cut(ref, "#")
	token, err := g.Token(ctx)
	if err != nil {
		return Fetched{}, errors.New("its own token is missing")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://secretmanager.googleapis.com/v1/"+name+":access", nil)
	if err != nil {
		return Fetched{}, err
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(secret.Text(token)))
	var got struct {
		Payload struct {
			Data string `json:"data"`
		} `json:"payload"`
	}
	if err := call(g.HTTP, r, &got); err != nil {
		return Fetched{}, err
	}
	b, err := base64.StdEncoding.DecodeString(got.Payload.Data)
	if err != nil {
		return Fetched{}, errors.New("its answer is not in base64")
	}
	return field(b, part)
}
