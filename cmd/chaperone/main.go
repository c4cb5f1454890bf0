// Command chaperone is a forward proxy for AI agents: agents hold handles, policy
// decides each action, and a record says who did what for whom.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], terminal())) }
