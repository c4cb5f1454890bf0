package credential

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"chaperone/credential/grant"
	"chaperone/credential/internal/secret"
	"chaperone/credential/sigv4"
	"chaperone/policy"
)

// An AWS handle is a pair: an access key id that AWS's SDKs take for one, by which the
// credential is found, and a secret key that follows from it and the installation's
// key. What counts is the signature that is made with it.
const (
	awsMark     = "AKIACHP"
	awsIDLen    = 9
	awsCheckLen = 4
	awsLen      = len(awsMark) + awsIDLen + awsCheckLen
	awsAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// newAWSHandle makes an access key id and its id.
func newAWSHandle() (handle, id string) {
	b := []byte(random(4 * awsIDLen)) // each character is one of 62; of two the lowest bits make one of 32
	raw := make([]byte, 0, awsIDLen)
	for i := 0; i < len(b) && len(raw) < awsIDLen; i += 4 {
		raw = append(raw, awsAlphabet[crc32.ChecksumIEEE(b[i:i+4])%32])
	}
	id = string(raw)
	return awsMark + id + awsCheck(id), id
}

func awsCheck(id string) string {
	n := crc32.ChecksumIEEE([]byte(awsMark + id))
	var out [awsCheckLen]byte
	for i := range out {
		out[i] = awsAlphabet[n%32]
		n /= 32
	}
	return string(out[:])
}

// awsID returns the id of an access key id that is a handle.
func awsID(s string) (string, bool) {
	if len(s) != awsLen || !strings.HasPrefix(s, awsMark) {
		return "", false
	}
	id := s[len(awsMark) : len(awsMark)+awsIDLen]
	return id, awsCheck(id) == s[len(awsMark)+awsIDLen:]
}

// standIn is the secret key of an AWS handle, of 40 characters as AWS's have.
func (v *Vault) standIn(handle string) secret.Secret {
	key, err := v.key.derive("aws stand-in", []byte(handle))
	if err != nil {
		return secret.Secret{} // verifies nothing: no signature is made with an empty key
	}
	return secret.New(base64.StdEncoding.EncodeToString(key[:30]))
}

// maxSigned bounds a body that is hashed because its signature is over all of it and
// its hash is not in the head, in bytes.
const maxSigned = 16 << 20

// maxDrift is how far the time of a signature may be from now; AWS allows as much.
const maxDrift = 15 * time.Minute

// signed is the agent's own signature over a request, verified.
type signed struct {
	aws     *sigv4.Signature
	payload string
	oauth1  map[string]string
	form    string // the body, where its parameters are signed
}

// awsSigned looks at a request that is signed for AWS. Its handle is in the signature,
// and counts only if the signature is made with the secret that belongs to it.
func (v *Vault) awsSigned(p *Presented, r *Request, parse func(*sigv4.Request) (*sigv4.Signature, error)) error {
	req := &sigv4.Request{Method: r.Method, Host: r.Host, Path: r.Path, RawQuery: r.RawQuery, Header: r.Header, ContentLength: r.ContentLength}
	s, err := parse(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForeignCredential, err)
	}
	id, ok := awsID(s.KeyID)
	if !ok {
		p.Fingerprint = v.prints.fingerprint(s.KeyID)
		return ErrForeignCredential
	}
	v.mu.RLock()
	h := v.byID[id]
	v.mu.RUnlock()
	if h == nil {
		p.Fingerprint = v.prints.fingerprint(s.KeyID)
		return ErrHandleUnknown
	}
	if err := v.accept(p, r, h, s.KeyID, spot{place: Place{kind: KindAWS}, field: "Authorization", text: s.KeyID}); err != nil {
		return err
	}
	ends := s.Time.Add(maxDrift)
	if s.Presigned {
		ends = s.Time.Add(s.Lifetime)
	}
	if r.Now.Before(s.Time.Add(-maxDrift)) || r.Now.After(ends) {
		return ErrSignatureTime
	}
	payload, err := payloadOf(s, r)
	if err != nil {
		return err
	}
	if err := s.Verify(req, v.standIn(s.KeyID), payload); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if s.Presigned { // the one made in its place goes out at once, and is of no use to who sees it later
		s.Lifetime = min(s.Lifetime, max(r.Now.Sub(s.Time), 0).Truncate(time.Second)+maxDrift)
	}
	p.signed = &signed{aws: s, payload: payload}
	return nil
}

// payloadOf is what the signature has in the place of the body's hash.
func payloadOf(s *sigv4.Signature, r *Request) (string, error) {
	switch {
	case s.Payload != "":
		return s.Payload, nil
	case s.Presigned && s.Service == "s3":
		return sigv4.Unsigned, nil
	case r.Body == nil:
		return sigv4.Hash(nil), nil
	}
	body, err := r.Body.WholeBody(maxSigned)
	if err != nil {
		return "", err
	}
	return sigv4.Hash(body), nil
}

// awsKeys sign with keys that stay the same.
type awsKeys struct {
	v    *Vault
	keys sigv4.Keys
}

// Format keeps the keys from being printed.
func (*awsKeys) Format(s fmt.State, _ rune) { fmt.Fprint(s, secret.Secret{}) }

func openAWS(o *opening) (applier, error) {
	keys, err := o.awsKeys()
	if err != nil {
		return nil, err
	}
	return &awsKeys{o.v, keys}, nil
}

func (o *opening) awsKeys() (sigv4.Keys, error) {
	f, err := o.fields()
	if err != nil {
		return sigv4.Keys{}, err
	}
	id, err := want(f, "access_key_id", "AccessKeyId", "aws_access_key_id")
	if err != nil {
		return sigv4.Keys{}, err
	}
	key, err := want(f, "secret_access_key", "SecretAccessKey", "aws_secret_access_key")
	if err != nil {
		return sigv4.Keys{}, err
	}
	k := sigv4.Keys{ID: secret.Text(id), Secret: key}
	if len(k.ID) < 16 || strings.Trim(k.ID, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return sigv4.Keys{}, fmt.Errorf("%w: the access key id is not of AWS's form", ErrShape)
	}
	for _, name := range []string{"session_token", "SessionToken", "aws_session_token"} {
		if t := f[name]; !t.Empty() {
			k.Token = t
		}
	}
	return k, nil
}

func (a *awsKeys) apply(_ context.Context, u *use) error { return signAWS(a.v, u, a.keys) }

// keysFor are the keys that sign for a caller.
func (a *awsKeys) keysFor(context.Context, *Caller) (sigv4.Keys, error) { return a.keys, nil }

// signAWS puts the service's signature in the place of the agent's. What is streamed in
// signed chunks is signed anew chunk by chunk.
func signAWS(v *Vault, u *use, keys sigv4.Keys) error {
	s := u.p.signed
	if s == nil || s.aws == nil {
		return ErrHandlePlace
	}
	out := u.out
	r := &sigv4.Request{Method: out.Target.Method, Host: out.HostHeader, Path: out.Path, RawQuery: out.RawQuery, Header: out.Header, ContentLength: out.ContentLength}
	value := s.aws.Resign(r, keys, s.payload)
	out.RawQuery = r.RawQuery
	if !keys.Token.Empty() { // it goes along, and is no use to anybody but us
		u.p.wrote(secret.Text(keys.Token))
	}
	if s.aws.Presigned { // S3 repeats the address where it redirects
		u.p.wrote(value)
	}
	if s.payload == sigv4.Chunks || s.payload == sigv4.ChunksTrailer {
		body := out.Tail
		if len(out.Head) > 0 {
			body = io.MultiReader(append([]io.Reader{bytes.NewReader(out.Head)}, nonNil(out.Tail)...)...)
		}
		if body == nil {
			body = bytes.NewReader(nil)
		}
		out.Head, out.Tail, out.Rewritten = nil, s.aws.ResignChunks(body, v.standIn(s.aws.KeyID), keys.Secret, value), true
	}
	return nil
}

func nonNil(r io.Reader) []io.Reader {
	if r == nil {
		return nil
	}
	return []io.Reader{r}
}

// awsRole signs with keys of a role, which are made out to one session.
type awsRole struct {
	*minted
}

func openAWSRole(o *opening) (applier, error) {
	keys, err := o.awsKeys()
	if err != nil {
		return nil, err
	}
	return o.assuming(&assumed{keys: keys})
}

// assuming reads the settings of a role.
func (o *opening) assuming(r *assumed) (applier, error) {
	r.v, r.role, r.region, r.external, r.duration = o.v, o.setting("role_arn"), o.setting("region"), o.setting("external_id"), 15*time.Minute
	if !strings.HasPrefix(r.role, "arn:aws") {
		return nil, fmt.Errorf("setting role_arn: %q is not the ARN of a role", r.role)
	}
	if r.region == "" {
		r.region = "us-east-1"
	}
	if strings.Trim(r.region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, fmt.Errorf("setting region: %q is not a region", r.region)
	}
	if d := o.setting("duration"); d != "" {
		var err error
		if r.duration, err = time.ParseDuration(d); err != nil || r.duration < 15*time.Minute || r.duration > 12*time.Hour {
			return nil, fmt.Errorf("setting duration: %q is not between 15m and 12h", d)
		}
	}
	if tags := o.setting("tags"); tags != "" {
		for tag := range strings.SplitSeq(tags, ",") {
			r.tags = append(r.tags, strings.TrimSpace(tag))
		}
	}
	for i, tag := range r.tags {
		if !slices.Contains([]string{"agent", "human", "instance", "session"}, tag) || slices.Contains(r.tags[:i], tag) {
			return nil, fmt.Errorf("setting tags: %q is not one of agent, human, instance, session, each once", tag)
		}
	}
	return &awsRole{newMinted(o, r)}, nil
}

// awsTemporary is what is kept of a role's keys.
type awsTemporary struct{ ID, Secret, Token string }

func (a *awsRole) apply(ctx context.Context, u *use) error {
	k, err := a.keysFor(ctx, &u.out.Caller)
	if err != nil {
		return err
	}
	return signAWS(a.v, u, k)
}

// keysFor are the role's keys of a caller.
func (a *awsRole) keysFor(ctx context.Context, c *Caller) (sigv4.Keys, error) {
	t, err := a.current(ctx, c, nil)
	if err != nil {
		return sigv4.Keys{}, err
	}
	var k awsTemporary
	if err := json.Unmarshal([]byte(t.text), &k); err != nil {
		return sigv4.Keys{}, fmt.Errorf("%w: the role's keys cannot be read", ErrUnavailable)
	}
	return sigv4.Keys{ID: k.ID, Secret: secret.New(k.Secret), Token: secret.New(k.Token)}, nil
}

// assumed mints keys of a role (docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html,
// and API_AssumeRoleWithWebIdentity.html).
type assumed struct {
	v        *Vault
	keys     sigv4.Keys
	web      secret.Secret // a workload's own token in the place of keys
	role     string
	region   string
	external string
	duration time.Duration
	tags     []string // agent, human, instance, session: which of them the keys carry
}

// audience: AWS's own log tells instances and people apart, so each has its own keys.
func (a *assumed) audience(c *Caller) string {
	out := c.Instance + "\n" + c.Human + "\n" + sessionPolicy(c.Scope)
	if slices.Contains(a.tags, "session") {
		out += "\n" + c.Session
	}
	return out
}

// tag adds session tags, by which AWS's log and its policies know agent and human
// (docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html).
func (a *assumed) tag(form url.Values, c *Caller) {
	n := 0
	for _, name := range a.tags {
		value := map[string]string{"agent": c.Agent, "human": c.Human, "instance": c.Instance, "session": c.Session}[name]
		if value == "" {
			continue // of nobody
		}
		n++
		form.Set(fmt.Sprintf("Tags.member.%d.Key", n), name)
		form.Set(fmt.Sprintf("Tags.member.%d.Value", n), tagValue(value))
	}
}

// tagValue is s as a value of a tag: of at most 256 letters, digits, spaces and
// _.:/=+-@.
func tagValue(s string) string {
	runes := []rune(s)
	for i, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsNumber(r) && r != ' ' && !strings.ContainsRune("_.:/=+-@", r) {
			runes[i] = '-'
		}
	}
	return string(runes[:min(len(runes), 256)])
}

func (a *assumed) mint(ctx context.Context, c *Caller, _ secret.Secret) (grant.Token, error) {
	if a.v.outside.HTTP == nil {
		return grant.Token{}, grant.ErrUnreachable
	}
	form := url.Values{
		"Action": {"AssumeRole"}, "Version": {"2011-06-15"}, "RoleArn": {a.role}, "RoleSessionName": {awsName(c.Instance)},
		"DurationSeconds": {fmt.Sprint(int(a.duration.Seconds()))},
	}
	if c.Human != "" {
		form.Set("SourceIdentity", awsName(c.Human))
	}
	if a.external != "" {
		form.Set("ExternalId", a.external)
	}
	if p := sessionPolicy(c.Scope); p != "" {
		form.Set("Policy", p)
	}
	if a.web.Empty() {
		a.tag(form, c)
	} else { // which says by itself whom it is for
		form.Set("Action", "AssumeRoleWithWebIdentity")
		form.Set("WebIdentityToken", secret.Text(a.web))
		form.Del("SourceIdentity")
	}
	body := []byte(form.Encode())
	host := "sts." + a.region + ".amazonaws.com"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/", bytes.NewReader(body))
	if err != nil {
		return grant.Token{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if a.web.Empty() {
		sigv4.New(&sigv4.Request{Method: r.Method, Host: host, Path: "/", Header: r.Header}, a.keys, a.region, "sts", body, a.v.now())
	}
	resp, err := a.v.outside.HTTP.RoundTrip(r)
	if err != nil {
		return grant.Token{}, grant.Unreached(ctx, err)
	}
	defer resp.Body.Close()
	t, err := readAssumed(resp, a.v.now())
	if err != nil && ctx.Err() != nil {
		err = grant.ErrTimeout
	}
	return t, err
}

func readAssumed(resp *http.Response, now time.Time) (grant.Token, error) {
	type keys struct {
		ID      string    `xml:"AccessKeyId"`
		Secret  string    `xml:"SecretAccessKey"`
		Token   string    `xml:"SessionToken"`
		Expires time.Time `xml:"Expiration"`
	}
	var got struct {
		Keys keys   `xml:"AssumeRoleResult>Credentials"`
		Web  keys   `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
		Code string `xml:"Error>Code"`
	}
	err := xml.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&got)
	if got.Keys.ID == "" {
		got.Keys = got.Web
	}
	switch why := fmt.Sprintf("it answers %d", resp.StatusCode); {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return grant.Token{}, fmt.Errorf("%w: %s", grant.ErrRedirect, why)
	case got.Code == "ExpiredTokenException", got.Code == "ExpiredToken":
		return grant.Token{}, fmt.Errorf("%w: %s: the workload's token has expired", skewed(resp, now, grant.ErrGrant), why)
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusBadRequest:
		return grant.Token{}, fmt.Errorf("%w: %s", skewed(resp, now, grant.ErrClient), why)
	case resp.StatusCode != http.StatusOK || err != nil || got.Keys.ID == "" || got.Keys.Secret == "":
		return grant.Token{}, fmt.Errorf("%w: %s", grant.ErrEndpoint, why)
	}
	text, err := json.Marshal(awsTemporary{got.Keys.ID, got.Keys.Secret, got.Keys.Token})
	return grant.Token{Access: secret.New(text), Expires: got.Keys.Expires}, errors.Join(err, lasting(got.Keys.Expires, now))
}

// awsName keeps of a name what AWS takes for a session's.
func awsName(s string) string {
	out := []byte(s)
	for i, c := range out {
		if !alphanumeric(c) && strings.IndexByte("_+=,.@-", c) < 0 {
			out[i] = '-'
		}
	}
	for len(out) < 2 {
		out = append(out, '-')
	}
	return string(out[:min(len(out), 64)])
}

// sessionPolicy is a scope as IAM takes it, by which the role's keys can do no more
// than the delegation says. It is empty where the scope narrows nothing.
func sessionPolicy(scope []policy.Scope) string {
	if len(scope) == 0 {
		return ""
	}
	type statement struct {
		Effect   string
		Action   []string
		Resource []string
	}
	statements := []statement{}
	for _, s := range scope {
		st := statement{Effect: "Allow", Resource: []string{"*"}}
		onlyS3 := true
		for _, pattern := range s.Actions {
			action := iamAction(pattern)
			if action != "" {
				st.Action = append(st.Action, action)
			}
			onlyS3 = onlyS3 && strings.HasPrefix(action, "s3:")
		}
		if len(s.Resources) > 0 && onlyS3 {
			st.Resource = nil
			for _, r := range s.Resources {
				st.Resource = append(st.Resource, "arn:aws:s3:::"+r)
			}
		}
		if len(st.Action) > 0 {
			statements = append(statements, st)
		}
	}
	if len(statements) == 0 { // nothing of AWS: nothing is allowed there
		statements = append(statements, statement{"Deny", []string{"*"}, []string{"*"}})
	}
	b, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		return ""
	}
	return string(b)
}

// iamAction is an action pattern as IAM names it: aws-s3:GetObject is s3:GetObject. It
// is empty for those of services that are not AWS's.
func iamAction(pattern string) string {
	if pattern == "*" || pattern == "*:*" || pattern == "aws-*" || pattern == "aws-*:*" {
		return "*"
	}
	service, operation, _ := strings.Cut(pattern, ":")
	service, ours := strings.CutPrefix(service, "aws-")
	if !ours || service == "" || operation == "" {
		return ""
	}
	return service + ":" + operation
}
