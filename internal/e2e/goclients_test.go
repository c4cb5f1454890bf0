package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"chaperone/internal/testkit"
)

// TestMain makes the Go clients into commands of the PATH.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"go-http": goHTTP, "go-grpc": goGRPC})
}

// denied reports which of the two calls the command is to make.
func denied() bool { return len(os.Args) > 1 && os.Args[1] == "denied" }

// goHTTP asks the GitHub stand-in with net/http and prints what came.
func goHTTP() {
	method, path := http.MethodGet, "/repos/acme/web/issues"
	if denied() {
		method, path = http.MethodDelete, "/repos/acme/web"
	}
	r, err := http.NewRequest(method, "https://api.github.com"+path, nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+os.Getenv("GITHUB_TOKEN"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(b), err)
}

// goGRPC speaks with the gRPC stand-in: one call when allowed, a stream otherwise.
func goGRPC() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("ECHO_TOKEN"))
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"))
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		fmt.Println("no roots:", err)
		return
	}
	conn, err := grpc.NewClient("dns:///grpc.example.com:443", grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	method := testkit.GRPCUnary
	if denied() {
		method = testkit.GRPCBidi
	}
	out := new(wrapperspb.StringValue)
	err = conn.Invoke(ctx, method, wrapperspb.String("said over gRPC"), out)
	fmt.Println(out.Value, err)
}

// direct gets a URL through a proxy URL, for the tests that need no other process.
func direct(proxy string, roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			Proxy:               func(*http.Request) (*url.URL, error) { return url.Parse(proxy) },
			MaxIdleConnsPerHost: 64,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		},
	}
}

// get returns the status and body of one GET with a bearer.
func get(ctx context.Context, c *http.Client, target, token string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var b strings.Builder
	_, err = io.Copy(&b, resp.Body)
	return resp.StatusCode, b.String(), err
}
