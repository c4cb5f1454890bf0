package testkit

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// GoogleTokens is a stand-in of Google's token endpoint: it trades the refresh token
// secret for the access token secret.
func GoogleTokens(secret string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("grant_type") != "refresh_token" || r.FormValue("refresh_token") != secret {
			answer(w, 400, map[string]any{"error": "invalid_grant"})
			return
		}
		answer(w, 200, map[string]any{"access_token": secret, "expires_in": 3600, "token_type": "Bearer"})
	})
}

// Buckets is a stand-in of Google Cloud Storage's JSON API, for the bearer secret. It
// lists one bucket, keeps what is put by each of the ways to upload (media, multipart
// and resumable), and gives endless, an object that does not end.
func Buckets(secret string) http.Handler {
	b := &buckets{objects: map[string][]byte{"plan": []byte("a plan\n")}, names: map[string]string{}}
	m := http.NewServeMux()
	m.HandleFunc("GET /storage/v1/b", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"kind": "storage#buckets", "items": []any{bucketResource}})
	})
	m.HandleFunc("GET /storage/v1/b/acme", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, bucketResource) })
	m.HandleFunc("GET /storage/v1/b/acme/o", b.list)
	m.HandleFunc("GET /storage/v1/b/acme/o/{object...}", b.get)
	m.HandleFunc("GET /download/storage/v1/b/acme/o/{object...}", b.get)
	m.HandleFunc("POST /upload/storage/v1/b/acme/o", b.begin)
	m.HandleFunc("POST /resumable/upload/storage/v1/b/acme/o", b.begin)
	m.HandleFunc("PUT /upload/storage/v1/b/acme/o", b.put)
	m.HandleFunc("PUT /resumable/upload/storage/v1/b/acme/o", b.put)
	m.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { bucketError(w, 404, "Not Found") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			bucketError(w, 401, "Invalid Credentials")
			return
		}
		m.ServeHTTP(w, r)
	})
}

var bucketResource = map[string]any{"kind": "storage#bucket", "id": "acme", "name": "acme", "projectNumber": "1", "metageneration": "1", "storageClass": "STANDARD", "location": "EU", "timeCreated": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z"}

func bucketError(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]any{"error": map[string]any{"code": status, "message": message, "errors": []any{map[string]any{"message": message, "domain": "global", "reason": "none"}}}})
}

// buckets are the objects of the one bucket, and the names of those that are being
// put, by the id of their upload.
type buckets struct {
	mu      sync.Mutex
	objects map[string][]byte
	names   map[string]string
}

func (b *buckets) list(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := []any{}
	for name, content := range b.objects {
		items = append(items, objectResource(name, content))
	}
	answer(w, 200, map[string]any{"kind": "storage#objects", "items": items})
}

func objectResource(name string, content []byte) map[string]any {
	sum := md5.Sum(content)
	check := crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli))
	return map[string]any{
		"kind": "storage#object", "id": "acme/" + name + "/1", "name": name, "bucket": "acme", "generation": "1", "metageneration": "1",
		"contentType": "application/octet-stream", "size": strconv.Itoa(len(content)), "storageClass": "STANDARD",
		"md5Hash": base64.StdEncoding.EncodeToString(sum[:]), "crc32c": base64.StdEncoding.EncodeToString([]byte{byte(check >> 24), byte(check >> 16), byte(check >> 8), byte(check)}),
		"timeCreated": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
		"mediaLink": "https://storage.googleapis.com/download/storage/v1/b/acme/o/" + name + "?generation=1&alt=media",
	}
}

func (b *buckets) get(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("object")
	b.mu.Lock()
	content, found := b.objects[name]
	b.mu.Unlock()
	media := r.URL.Query().Get("alt") == "media"
	switch {
	case name == "endless" && media:
		w.Header().Set("Content-Type", "text/plain")
		Tick(r.Context(), func(n int) error { // until the client is gone; its reads want full buffers
			if _, err := fmt.Fprintf(w, "tick %-65530d\n", n); err != nil {
				return err
			}
			return http.NewResponseController(w).Flush()
		})
	case name == "endless":
		answer(w, 200, objectResource(name, make([]byte, 1<<20)))
	case !found:
		bucketError(w, 404, "No such object: acme/"+name)
	case media:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(content) // the client's own affair
	default:
		answer(w, 200, objectResource(name, content))
	}
}

// begin takes an object by one request, or says where it is to be put.
func (b *buckets) begin(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxObject))
	if err != nil {
		bucketError(w, 400, "the body was cut short")
		return
	}
	name := q.Get("name")
	switch q.Get("uploadType") {
	case "resumable":
		if name == "" {
			name = nameIn(body)
		}
		b.mu.Lock()
		id := strconv.Itoa(len(b.names) + 1)
		b.names[id] = name
		b.mu.Unlock()
		w.Header().Set("Location", "https://storage.googleapis.com"+r.URL.Path+"?uploadType=resumable&upload_id="+id)
		answer(w, 200, map[string]any{})
	case "multipart":
		meta, content, err := related(r.Header.Get("Content-Type"), body)
		if err != nil {
			bucketError(w, 400, err.Error())
			return
		}
		b.keep(w, nameIn(meta), content)
	default:
		b.keep(w, name, body)
	}
}

// put takes what was begun; the last part ends it.
func (b *buckets) put(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxObject))
	b.mu.Lock()
	name, found := b.names[r.URL.Query().Get("upload_id")]
	b.mu.Unlock()
	if err != nil || !found {
		bucketError(w, 404, "no such upload")
		return
	}
	b.keep(w, name, body)
}

func (b *buckets) keep(w http.ResponseWriter, name string, content []byte) {
	b.mu.Lock()
	b.objects[name] = content
	b.mu.Unlock()
	answer(w, 200, objectResource(name, content))
}

func nameIn(meta []byte) string {
	var in struct{ Name string }
	if json.Unmarshal(meta, &in) != nil {
		return ""
	}
	return in.Name
}

// related takes multipart/related (RFC 2387) apart: what is said of an object, and the
// object.
func related(contentType string, body []byte) (meta, content []byte, err error) {
	kind, params, err := mime.ParseMediaType(strings.ReplaceAll(contentType, "'", `"`)) // gsutil writes Python's quotes
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return nil, nil, fmt.Errorf("not in parts: %q", contentType)
	}
	in := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	var parts [2][]byte
	for i := range parts {
		part, err := in.NextRawPart()
		if err != nil {
			return nil, nil, fmt.Errorf("reading a part: %w", err)
		}
		if parts[i], err = io.ReadAll(part); err != nil {
			return nil, nil, fmt.Errorf("reading a part: %w", err)
		}
	}
	return parts[0], parts[1], nil
}
