package main

import "net/http"

// answerFields are the fields of an answer of GitHub's REST API to a caller with a token,
// as api.github.com sends them, beside Date and Content-Length. Of a service like it
// agents read all day; one that answers with next to no fields has less for a proxy to
// look at than there is in earnest.
var answerFields = [][2]string{
	{"Server", "github.com"},
	{"Content-Type", "application/json; charset=utf-8"},
	{"Cache-Control", "private, max-age=60, s-maxage=60"},
	{"Vary", "Accept, Authorization, Cookie, X-GitHub-OTP,Accept-Encoding, Accept, X-Requested-With"},
	{"Etag", `W/"8a1b4d2e6f0c3a5b7d9e1f2a4c6b8d0e1f3a5c7b9d2e4f6a8c0b1d3e5f7a9c2b"`},
	{"X-Oauth-Scopes", "repo"},
	{"X-Accepted-Oauth-Scopes", ""},
	{"X-Github-Media-Type", "github.v3; format=json"},
	{"X-Github-Api-Version-Selected", "2022-11-28"},
	{"X-Ratelimit-Limit", "5000"},
	{"X-Ratelimit-Remaining", "4987"},
	{"X-Ratelimit-Reset", "1764050000"},
	{"X-Ratelimit-Used", "13"},
	{"X-Ratelimit-Resource", "core"},
	{"Access-Control-Expose-Headers", "ETag, Link, Location, Retry-After, X-GitHub-OTP, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Used, " +
		"X-RateLimit-Resource, X-RateLimit-Reset, X-OAuth-Scopes, X-Accepted-OAuth-Scopes, X-Poll-Interval, X-GitHub-Media-Type, X-GitHub-SSO, " +
		"X-GitHub-Request-Id, Deprecation, Sunset"},
	{"Access-Control-Allow-Origin", "*"},
	{"Strict-Transport-Security", "max-age=31536000; includeSubdomains; preload"},
	{"X-Frame-Options", "deny"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Xss-Protection", "0"},
	{"Referrer-Policy", "origin-when-cross-origin, strict-origin-when-cross-origin"},
	{"Content-Security-Policy", "default-src 'none'"},
	{"X-Github-Request-Id", "C0DE:1A2B3C:4D5E6F:7A8B9C:65F0A1B2"},
}

// requestFields are those that Python's requests sends to it with a token, beside Host
// and Authorization.
const requestFields = "Accept: application/vnd.github+json\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n" +
	"User-Agent: python-requests/2.32.3\r\nX-Github-Api-Version: 2022-11-28\r\n"

// The same of a service and a client that say as little as they can.
var (
	leanAnswer  = [][2]string{{"Content-Type", "application/json"}}
	leanRequest = "Accept: application/json\r\nUser-Agent: bench\r\n"
)

// setFields puts fields into the head of an answer.
func setFields(h http.Header, fields [][2]string) {
	for _, f := range fields {
		h[f[0]] = []string{f[1]}
	}
}
