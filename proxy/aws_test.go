package proxy

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"chaperone/credential"
	"chaperone/proxy/identity"
	"chaperone/proxy/upstream"
)

const (
	realKeyID = "AKIACANARY0000000001"
	realKey   = "canary/canary+canary/canary+canary/canary"
)

// amazon is an S3, a DynamoDB and a token service that verify signatures, by AWS's own
// signer.
type amazon struct {
	mu      sync.Mutex
	secrets map[string]aws.Credentials
	objects map[string][]byte
	parts   map[string]map[string][]byte
	faults  []string
	modes   map[string]int
	forms   []string
	assumed atomic.Int64
}

func newAmazon() *amazon {
	return &amazon{secrets: map[string]aws.Credentials{realKeyID: {AccessKeyID: realKeyID, SecretAccessKey: realKey}}, objects: map[string][]byte{}, parts: map[string]map[string][]byte{}, modes: map[string]int{}}
}

// verify returns why a request is not signed as it has to be. Body is as it came.
func (a *amazon) verify(r *http.Request, body []byte) string {
	auth, presigned := r.Header.Get("Authorization"), r.URL.Query().Get("X-Amz-Signature")
	given := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimPrefix(auth, "AWS4-HMAC-SHA256 "), ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		given[k] = v
	}
	stamp, scopeText, signed := r.Header.Get("X-Amz-Date"), given["Credential"], given["SignedHeaders"]
	if presigned != "" {
		stamp, scopeText, signed = r.URL.Query().Get("X-Amz-Date"), r.URL.Query().Get("X-Amz-Credential"), r.URL.Query().Get("X-Amz-SignedHeaders")
	}
	scope := strings.Split(scopeText, "/")
	at, err := time.Parse("20060102T150405Z", stamp)
	creds, known := a.secrets[scope[0]]
	if err != nil || len(scope) != 5 || !known {
		return fmt.Sprintf("no key %q, %v", scopeText, err)
	}
	again, err := http.NewRequest(r.Method, "https://"+r.Host+r.RequestURI, nil)
	if err != nil {
		return err.Error()
	}
	for name := range strings.SplitSeq(signed, ";") {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header[http.CanonicalHeaderKey(name)]
		}
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	a.modes[fmt.Sprintf("%s %.12s", scope[3], payload)]++
	sum := sha256.Sum256(body)
	switch {
	case presigned != "":
		payload = "UNSIGNED-PAYLOAD"
	case payload == "":
		payload = hex.EncodeToString(sum[:])
	case len(payload) == 64 && payload != hex.EncodeToString(sum[:]):
		return "the body has another hash than its field says"
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = scope[3] == "s3" })
	if presigned != "" {
		q := again.URL.Query()
		for _, name := range []string{"X-Amz-Signature", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Algorithm", "X-Amz-SignedHeaders", "X-Amz-Security-Token"} {
			q.Del(name)
		}
		again.URL.RawQuery = q.Encode()
		uri, _, err := signer.PresignHTTP(context.Background(), creds, again, payload, scope[3], scope[2], at)
		if err != nil || !strings.Contains(uri, "X-Amz-Signature="+presigned) {
			return fmt.Sprintf("presigned: %v", err)
		}
		return ""
	}
	if err := signer.SignHTTP(context.Background(), creds, again, payload, scope[3], scope[2], at); err != nil {
		return err.Error()
	}
	if !strings.HasSuffix(again.Header.Get("Authorization"), "Signature="+given["Signature"]) {
		return "signature: " + signed
	}
	if payload == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" && !chunksHold(body, creds.SecretAccessKey, stamp, scope[2], given["Signature"]) {
		return "a chunk's signature"
	}
	if token := r.Header.Get("X-Amz-Security-Token"); token != creds.SessionToken {
		return "session token"
	}
	return ""
}

// chunksHold verifies every chunk of a stream.
func chunksHold(b []byte, secretKey, stamp, region, last string) bool {
	for {
		line, rest, _ := bytes.Cut(b, []byte("\r\n"))
		size, signature, _ := strings.Cut(string(line), ";chunk-signature=")
		var n int
		if _, err := fmt.Sscanf(size, "%x", &n); err != nil || n+2 > len(rest) {
			return false
		}
		if last = chunkSignature(secretKey, stamp, region, last, rest[:n]); last != signature {
			return false
		}
		if n == 0 {
			return len(rest) == 2
		}
		b = rest[n+2:]
	}
}

func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	if fault := a.verify(r, body); fault != "" {
		a.faults = append(a.faults, r.Method+" "+r.Host+r.RequestURI+": "+fault)
		w.WriteHeader(403)
		io.WriteString(w, `<Error><Code>SignatureDoesNotMatch</Code></Error>`)
		return
	}
	switch {
	case strings.HasPrefix(r.Host, "dynamodb"):
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		io.WriteString(w, "{}")
	case strings.HasPrefix(r.Host, "sts"):
		a.assume(w, body)
	default:
		a.s3(w, r, body)
	}
}

// assume hands out keys as AssumeRole does.
func (a *amazon) assume(w http.ResponseWriter, body []byte) {
	n := a.assumed.Add(1)
	id := fmt.Sprintf("ASIACANARY%010d", n)
	a.secrets[id] = aws.Credentials{AccessKeyID: id, SecretAccessKey: fmt.Sprint("canary-temporary-", n), SessionToken: fmt.Sprint("canary-token/", n)}
	a.forms = append(a.forms, string(body))
	fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		id, a.secrets[id].SecretAccessKey, a.secrets[id].SessionToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

// s3 is as much of S3 as its clients need to store and fetch.
func (a *amazon) s3(w http.ResponseWriter, r *http.Request, body []byte) {
	if strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
		body = dechunk(body)
	}
	bucket, _, _ := strings.Cut(r.Host, ".s3.") // at whichever of its hosts
	q, name := r.URL.Query(), bucket+r.URL.Path
	switch {
	case r.Method == "POST" && q.Has("uploads"):
		a.parts[name] = map[string][]byte{}
		io.WriteString(w, `<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == "PUT" && q.Has("partNumber"):
		a.parts[name][q.Get("partNumber")] = body
		w.Header().Set("ETag", `"e"`)
	case r.Method == "POST" && q.Has("uploadId"):
		for i := 1; i <= len(a.parts[name]); i++ {
			a.objects[name] = append(a.objects[name], a.parts[name][fmt.Sprint(i)]...)
		}
		io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>`)
	case r.Method == "PUT":
		a.objects[name] = body
		w.Header().Set("ETag", `"e"`)
	case q.Get("list-type") == "2":
		io.WriteString(w, `<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>`)
	default:
		w.Header().Set("ETag", `"e"`)
		w.Write(a.objects[name])
	}
}

// dechunk takes the chunks of aws-chunked apart.
func dechunk(b []byte) (out []byte) {
	for {
		line, rest, _ := bytes.Cut(b, []byte("\r\n"))
		size, _, _ := strings.Cut(string(line), ";")
		var n int
		fmt.Sscanf(size, "%x", &n)
		if n == 0 || n > len(rest) {
			return out
		}
		out, b = append(out, rest[:n]...), rest[n+2:]
	}
}

// amazonRoad is a road to it, with a session that holds keys for all of AWS.
func amazonRoad(t *testing.T, c credential.Credential) (*road, *amazon, map[string]string) {
	d := newRoad(t, func(_ *Options, u *upstream.Options) {
		u.Resolve["*.amazonaws.com"] = u.Resolve["api.acme.dev"]
	})
	a := newAmazon()
	d.serve = a.ServeHTTP
	d.vault.Use(credential.Outside{HTTP: d.server.o.Upstream.Own()})
	c.ID, c.Service, c.Owner = "cloud", "aws-*", "org"
	check(t, d.vault.Add(t.Context(), c, credential.NewSecret([]byte(`{"AccessKeyId":"`+realKeyID+`","SecretAccessKey":"`+realKey+`"}`))))
	var err error
	d.session, err = d.dir.CreateSession(t.Context(), identity.Spec{Agent: "bot", Human: "alice@acme.com", Credentials: []string{"cloud"}})
	check(t, err)
	return d, a, d.vault.StandIns("cloud", d.session.Handles["cloud"])
}

// client runs a program of the machine through the proxy.
func (d *road) run(env map[string]string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	ca := filepath.Join(d.t.TempDir(), "ca.pem")
	check(d.t, os.WriteFile(ca, d.ca.PEM(), 0o600))
	cmd := exec.CommandContext(ctx, name, args...)
	proxy := "http://bot:" + d.session.Token + "@" + d.addr
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.t.TempDir(), "HTTPS_PROXY=" + proxy, "https_proxy=" + proxy, "AWS_CA_BUNDLE=" + ca, "REQUESTS_CA_BUNDLE=" + ca,
		"AWS_DEFAULT_REGION=eu-west-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1"}
	if root := os.Getenv("PYENV_ROOT"); root != "" {
		cmd.Env = append(cmd.Env, "PYENV_ROOT="+root)
	}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const boto = `
import boto3, io, sys, hashlib
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
s3 = boto3.client("s3")
s3.put_object(Bucket="b.ucket-1", Key="dir/a b+c(1)%.txt", Body=b"hello")
assert s3.get_object(Bucket="b.ucket-1", Key="dir/a b+c(1)%.txt")["Body"].read() == b"hello"
s3.put_object(Bucket="bucket", Key="none", Body=b"")
s3.list_objects_v2(Bucket="bucket", Prefix="a b/~", Delimiter="/")
big = bytes(range(256)) * 4 * 12 * 1024
s3.upload_fileobj(io.BytesIO(big), "bucket", "big", Config=TransferConfig(multipart_threshold=5<<20, multipart_chunksize=5<<20))
assert s3.get_object(Bucket="bucket", Key="big")["Body"].read() == big
signed = boto3.client("s3", config=Config(s3={"payload_signing_enabled": True}, request_checksum_calculation="when_required"))
signed.put_object(Bucket="bucket", Key="signed", Body=b"x" * 100000)
old = boto3.client("s3", config=Config(request_checksum_calculation="when_required"))
old.put_object(Bucket="bucket", Key="unsigned", Body=io.BytesIO(b"y" * 100000))
boto3.client("dynamodb").put_item(TableName="t", Item={"k": {"S": "v"}})
url = boto3.client("s3", config=Config(signature_version="s3v4")).generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "signed"}, ExpiresIn=60)
import urllib.request, ssl, os
r = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"]))).open(url)
assert r.read() == b"x" * 100000
print("all well")
`

func TestAWSClients(t *testing.T) {
	if _, err := exec.Command("python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skip("there is no boto3 on this machine")
	}
	for name, c := range map[string]credential.Credential{
		"keys": {Kind: credential.KindAWS},
		"role": {Kind: credential.KindAWSRole, Settings: map[string]string{"role_arn": "arn:aws:iam::1:role/agent", "external_id": "x", "tags": "agent, human"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, a, env := amazonRoad(t, c)
			out, err := d.run(env, "python3", "-c", boto)
			if err != nil || !strings.Contains(out, "all well") {
				all := d.records(1)
				t.Errorf("boto3: %v\n%s\n%s\n%s", err, out, strings.Join(a.faults, "\n"), all[len(all)-1].Decision.Raw)
			}
			if name == "keys" {
				if out, err := d.run(env, "aws", "s3api", "put-object", "--bucket", "bucket", "--key", "cli", "--body", "aws_test.go"); err != nil {
					t.Errorf("aws: %v\n%s", err, out)
				}
			}
			t.Log(a.modes)
			if len(a.modes) < 4 {
				t.Errorf("payload modes: %v", a.modes)
			}
			if name == "role" && (a.assumed.Load() != 1 || !strings.Contains(a.forms[0], "RoleSessionName="+d.session.Instance) || !strings.Contains(a.forms[0], "SourceIdentity=alice%40acme.com") || !strings.Contains(a.forms[0], "ExternalId=x") ||
				!strings.Contains(a.forms[0], "Tags.member.1.Key=agent&Tags.member.1.Value=bot&Tags.member.2.Key=human&Tags.member.2.Value=alice%40acme.com")) {
				t.Errorf("the token service was asked %d times: %v", a.assumed.Load(), a.forms)
			}
			d.unseen(1, "canary", "CANARY", env["AWS_SECRET_ACCESS_KEY"])
		})
	}
}

func TestAWSRefusals(t *testing.T) {
	d, a, env := amazonRoad(t, credential.Credential{Kind: credential.KindAWS})
	send := func(id, secretKey string, at time.Time, change func(*http.Request)) string {
		t.Helper()
		req, err := http.NewRequest("PUT", "https://bucket.s3.eu-west-1.amazonaws.com/x", strings.NewReader("body"))
		check(t, err)
		sum := sha256.Sum256([]byte("body"))
		req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
		check(t, v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), aws.Credentials{AccessKeyID: id, SecretAccessKey: secretKey}, req, hex.EncodeToString(sum[:]), "s3", "eu-west-1", at))
		if change != nil {
			change(req)
		}
		resp, err := d.client(false).Do(req)
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, err)
		resp.Body.Close()
		return fmt.Sprintf("%d %s", resp.StatusCode, body)
	}
	id, secretKey := env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
	now := time.Now()
	if got := send(id, secretKey, now, nil); !strings.HasPrefix(got, "200") {
		t.Fatalf("as it has to be: %s %v", got, a.faults)
	}
	for i, tc := range []struct{ name, code, got string }{
		{"another secret", "handle_signature", send(id, secretKey+"x", now, nil)},
		{"another path than was signed", "handle_signature", send(id, secretKey, now, func(r *http.Request) { r.URL.Path = "/y" })},
		{"a signature of yesterday", "signature_time", send(id, secretKey, now.Add(-24*time.Hour), nil)},
		{"a real key", "foreign_credential", send(realKeyID, realKey, now, nil)},
		{"no such handle", "foreign_credential", send("AKIACHPAAAAAAAAAAAAA", secretKey, now, nil)},
	} {
		x := d.records(i + 2)[i+1]
		if !strings.HasPrefix(tc.got, "403") || x.Outcome.Outcome.Error != tc.code {
			t.Errorf("%s: %s\n%s", tc.name, tc.got, x.Outcome.Raw)
		}
	}
	if len(a.faults) > 0 || len(d.received()) != 1 {
		t.Errorf("the service saw %d requests, %v", len(d.received()), a.faults)
	}
	d.unseen(6, "canary", secretKey)
}

// TestPresignedURLsEndSoon: an address that an agent signed for a week is signed anew
// for minutes, and a service that repeats it does not show it.
func TestPresignedURLsEndSoon(t *testing.T) {
	d, a, env := amazonRoad(t, credential.Credential{Kind: credential.KindAWS})
	id, secretKey := env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
	serve := d.serve
	d.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "https://bucket.s3.us-west-2.amazonaws.com"+r.RequestURI)
		serve(w, r)
	}
	req, err := http.NewRequest("GET", "https://bucket.s3.eu-west-1.amazonaws.com/x?X-Amz-Expires=604800", nil)
	check(t, err)
	uri, _, err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).PresignHTTP(t.Context(), aws.Credentials{AccessKeyID: id, SecretAccessKey: secretKey}, req, "UNSIGNED-PAYLOAD", "s3", "eu-west-1", time.Now().Add(-time.Hour))
	check(t, err)
	req, err = http.NewRequest("GET", uri, nil)
	check(t, err)
	resp, err := d.client(false).Do(req)
	check(t, err)
	resp.Body.Close()
	if resp.StatusCode != 200 || len(a.faults) > 0 {
		t.Fatalf("%s %v", resp.Status, a.faults)
	}
	u, err := url.Parse(d.received()[0].URI)
	check(t, err)
	seconds, err := strconv.Atoi(u.Query().Get("X-Amz-Expires"))
	if err != nil || seconds < 3600 || seconds > 3600+16*60 {
		t.Errorf("the service's address is good for %d s after it was signed an hour ago", seconds)
	}
	if sign := u.Query().Get("X-Amz-Signature"); strings.Contains(resp.Header.Get("Location"), sign) {
		t.Errorf("the agent was shown a signature of the real key: %s", resp.Header.Get("Location"))
	}
}

// chunkSignature is one signature of a stream, as AWS's documentation describes it.
func chunkSignature(secretKey, stamp, region, before string, data []byte) string {
	sum := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		io.WriteString(h, text)
		return h.Sum(nil)
	}
	key := sum(sum(sum(sum([]byte("AWS4"+secretKey), stamp[:8]), region), "s3"), "aws4_request")
	none, of := sha256.Sum256(nil), sha256.Sum256(data)
	return hex.EncodeToString(sum(key, "AWS4-HMAC-SHA256-PAYLOAD\n"+stamp+"\n"+stamp[:8]+"/"+region+"/s3/aws4_request\n"+before+"\n"+hex.EncodeToString(none[:])+"\n"+hex.EncodeToString(of[:])))
}

// TestSignedChunks streams in chunks that are each signed.
func TestSignedChunks(t *testing.T) {
	d, a, env := amazonRoad(t, credential.Credential{Kind: credential.KindAWS})
	send := func(spoil bool) (int, error) {
		req, err := http.NewRequest("PUT", "https://bucket.s3.eu-west-1.amazonaws.com/x", nil)
		check(t, err)
		req.Header = http.Header{"X-Amz-Content-Sha256": {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, "X-Amz-Decoded-Content-Length": {"12"}, "Content-Encoding": {"aws-chunked"}}
		secretKey := env["AWS_SECRET_ACCESS_KEY"]
		check(t, v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), aws.Credentials{AccessKeyID: env["AWS_ACCESS_KEY_ID"], SecretAccessKey: secretKey}, req,
			"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "s3", "eu-west-1", time.Now()))
		_, last, _ := strings.Cut(req.Header.Get("Authorization"), "Signature=")
		var body strings.Builder
		for _, chunk := range []string{"hello, ", "world", ""} {
			last = chunkSignature(secretKey, req.Header.Get("X-Amz-Date"), "eu-west-1", last, []byte(chunk))
			if spoil && chunk == "world" {
				chunk = "World"
			}
			fmt.Fprintf(&body, "%x;chunk-signature=%s\r\n%s\r\n", len(chunk), last, chunk)
		}
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(body.String())), int64(body.Len())
		resp, err := d.client(false).Do(req)
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	if code, err := send(false); err != nil || code != 200 {
		t.Fatal(code, err, a.faults)
	}
	a.mu.Lock()
	got := string(a.objects["bucket/x"])
	delete(a.objects, "bucket/x")
	a.mu.Unlock()
	if got != "hello, world" {
		t.Errorf("the service has %q", got)
	}
	if code, err := send(true); err == nil && code < 400 {
		t.Errorf("a chunk that was changed on the way: %d", code)
	}
	d.records(2)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.objects) != 0 {
		t.Errorf("the service has %q", a.objects)
	}
}
