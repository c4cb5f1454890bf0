package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

// TestMain makes the Go clients, and what rows run under, into commands of the PATH.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"go-http": goHTTP, "go-grpc": goGRPC, "with-token": withToken, "straight": straight})
}

// goHTTP asks what the environment says with net/http and prints what comes.
func goHTTP() {
	r, err := http.NewRequest(os.Getenv("METHOD"), os.Getenv("URL"), strings.NewReader(os.Getenv("BODY")))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
	resp, err := http.DefaultClient.Do(r)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.Copy(os.Stdout, resp.Body)
	}
	leave(err)
}

// leave says why a client ends badly, if it does.
func leave(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// goGRPC speaks with the gRPC stand-in. grpc-go's own roots are the system's, for
// which Go reads SSL_CERT_FILE.
func goGRPC() {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+os.Getenv("ECHO_TOKEN"))
	conn, err := grpc.NewClient("dns:///grpc.example.com:443", grpc.WithTransportCredentials(credentials.NewTLS(nil)))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	switch call := os.Getenv("CALL"); call {
	case "events", "endless":
		err = goGRPCStream(ctx, conn, call)
	default:
		method := testkit.GRPCUnary
		if call == "denied" {
			method = "/chaperone.test.Echo/Drop"
		}
		out := new(wrapperspb.StringValue)
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		err = conn.Invoke(ctx, method, wrapperspb.String("said over gRPC"), out)
		fmt.Println(out.Value)
	}
	if !errors.Is(err, io.EOF) {
		leave(err)
	}
}

// goGRPCStream prints what comes over a stream.
func goGRPCStream(ctx context.Context, conn *grpc.ClientConn, call string) error {
	desc, method, text := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, testkit.GRPCBidi, "said over gRPC"
	if call == "endless" {
		desc, method, text = &grpc.StreamDesc{ServerStreams: true}, testkit.GRPCWatch, "tick"
	}
	st, err := conn.NewStream(ctx, desc, method)
	if err == nil {
		err = st.SendMsg(wrapperspb.String(text))
	}
	if err == nil {
		err = st.CloseSend()
	}
	for err == nil {
		out := new(wrapperspb.StringValue)
		if err = st.RecvMsg(out); err == nil {
			fmt.Println(out.Value)
		}
	}
	return err
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
