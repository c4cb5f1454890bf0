package testkit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// maxObject bounds one object that is put, in bytes.
const maxObject = 64 << 20

// S3 is a stand-in of Amazon S3 with a bucket acme, for whoever signs with the secret
// key of id. AWS's own signer makes each signature anew to compare; bodies that the
// head has a hash of are held against it. It lists buckets, takes objects, and gives
// endless, an object that does not end.
func S3(id, secret string) http.Handler {
	return S3For(aws.Credentials{AccessKeyID: id, SecretAccessKey: secret})
}

// S3For is S3 for keys that may have a session token.
func S3For(keys aws.Credentials) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxObject))
		if err == nil {
			err = signedBy(r, keys, body)
		}
		w.Header().Set("Content-Type", "application/xml")
		switch {
		case err != nil:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, xml.Header+"<Error><Code>SignatureDoesNotMatch</Code><Message>%v</Message></Error>", err)
		case r.Method == http.MethodPut:
			w.Header().Set("Etag", fmt.Sprintf(`"size-%d"`, len(body)))
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case path.Base(r.URL.Path) == "endless":
			w.Header().Set("Content-Type", "text/plain")
			Tick(r.Context(), func(n int) error { // until the client is gone; its reads want full buffers
				if _, err := fmt.Fprintf(w, "tick %-65530d\n", n); err != nil {
					return err
				}
				return http.NewResponseController(w).Flush()
			})
		case r.URL.Path == "/":
			io.WriteString(w, xml.Header+`<ListAllMyBucketsResult><Buckets><Bucket><Name>acme</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket></Buckets></ListAllMyBucketsResult>`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

// signedBy is nil for a request with a signature of keys in its Authorization field,
// version 4.
func signedBy(r *http.Request, keys aws.Credentials, body []byte) error {
	given := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 "), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		given[name] = value
	}
	scope := strings.Split(given["Credential"], "/")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || len(scope) != 5 || scope[0] != keys.AccessKeyID {
		return errors.New("not signed with the key of this account")
	}
	again, err := http.NewRequest(r.Method, "https://"+r.Host+r.RequestURI, nil)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(given["SignedHeaders"], ";") {
		switch name {
		case "host", "x-amz-security-token": // the signer sets that one by itself
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header[http.CanonicalHeaderKey(name)]
		}
	}
	payload, sum := r.Header.Get("X-Amz-Content-Sha256"), sha256.Sum256(body)
	if len(payload) == 2*len(sum) && payload != hex.EncodeToString(sum[:]) {
		return errors.New("the body has another hash than its field says")
	}
	if payload == "" { // only S3 demands the field
		payload = hex.EncodeToString(sum[:])
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err := signer.SignHTTP(context.Background(), keys, again, payload, scope[3], scope[2], at); err != nil {
		return err
	}
	if !strings.HasSuffix(again.Header.Get("Authorization"), "Signature="+given["Signature"]) {
		return errors.New("another signature than the key makes")
	}
	return nil
}
