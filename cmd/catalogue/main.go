// Command catalogue makes the shipped catalogue files from the vendors' public
// descriptions, as packages carry them:
//
//	npm pack @octokit/openapi@23.0.2 @slack/web-api@8.2.0
//	go mod download github.com/stripe/stripe-mock@v0.203.0 …
//	go run ./cmd/catalogue -npm FOLDER-WITH-THE-TARBALLS -out policy/action/catalogue
//
// Go modules are found in the module cache. The output depends on nothing but the
// packages named here: two runs write the same bytes.
package main

import (
	"flag"
	"fmt"
	"os"

	"chaperone/policy/action"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	flags := flag.NewFlagSet("catalogue", flag.ContinueOnError)
	npm := flags.String("npm", ".", "folder with the npm tarballs")
	out := flags.String("out", "policy/action/catalogue", "folder to write to")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	for _, make := range []func(sources) (*action.Service, error){github, slack, stripe, openAI, anthropic} {
		s, err := make(sources{npm: *npm})
		if err == nil {
			err = write(*out, s)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "catalogue: error:", err)
			return 1
		}
	}
	return 0
}
