// Loads a compose file as Docker Compose does, with all profiles, and checks that the image of the
// service is built once. Starts nothing.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	log.SetFlags(0)
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithProfiles([]string{"*"}), cli.WithName("receipts"))
	if err != nil {
		log.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	var builds, own []string
	for name, service := range project.Services {
		if service.Build != nil {
			builds = append(builds, name)
		}
		if service.Image == "receipts" {
			own = append(own, name)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				log.Fatalf("%s publishes port %s beyond the loopback", name, port.Published)
			}
		}
	}
	if len(builds) != 1 || len(own) < 6 {
		log.Fatalf("built: %s; with the image: %s", strings.Join(builds, ", "), strings.Join(own, ", "))
	}
	fmt.Printf("compose: %d services, %d of them with the image that one builds\n", len(project.Services), len(own))
}
