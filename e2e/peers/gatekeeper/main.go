// Gatekeeper's policy engine behind the thinnest webhook that can serve it: its constraint client, its target and its driver for CEL, as its own
// webhook puts them together, and net/http with TLS. What its webhook does beside (expansion, metrics, lookups in the cluster) is left out, in its favour.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/open-policy-agent/frameworks/constraint/pkg/apis"
	constraints "github.com/open-policy-agent/frameworks/constraint/pkg/client"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client/reviews"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/drivers/k8scel"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/gator/reader"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/target"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/util"
	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

func main() {
	addr := flag.String("addr", "", "address to listen on")
	cert := flag.String("tls-cert-file", "", "certificate")
	key := flag.String("tls-private-key-file", "", "its key")
	policies := flag.String("policies", "", "JSON list: templates first, then constraints")
	flag.Parse()
	if err := serve(*addr, *cert, *key, *policies); err != nil {
		log.Fatal(err)
	}
}

func serve(addr, cert, key, policies string) error {
	client, err := engine(policies)
	if err != nil {
		return err
	}
	http.HandleFunc("POST /v1/admit", func(w http.ResponseWriter, r *http.Request) {
		answer, err := review(r, client)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			log.Print(err)
		}
	})
	return http.ListenAndServeTLS(addr, cert, key, nil)
}

func engine(policies string) (*constraints.Client, error) {
	driver, err := k8scel.New()
	if err != nil {
		return nil, err
	}
	client, err := constraints.NewClient(
		constraints.Targets(&target.K8sValidationTarget{}),
		constraints.Driver(driver),
		constraints.EnforcementPoints(util.WebhookEnforcementPoint),
	)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := apis.AddToScheme(scheme); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(policies)
	if err != nil {
		return nil, err
	}
	var objects []map[string]any
	if err := json.Unmarshal(text, &objects); err != nil {
		return nil, err
	}
	for _, object := range objects {
		if err := add(client, scheme, &unstructured.Unstructured{Object: object}); err != nil {
			return nil, fmt.Errorf("%v: %w", object["metadata"], err)
		}
	}
	return client, nil
}

func add(client *constraints.Client, scheme *runtime.Scheme, object *unstructured.Unstructured) error {
	ctx := context.Background()
	if !reader.IsTemplate(object) {
		_, err := client.AddConstraint(ctx, object)
		return err
	}
	template, err := reader.ToTemplate(scheme, object)
	if err != nil {
		return err
	}
	_, err = client.AddTemplate(ctx, template)
	return err
}

func review(r *http.Request, client *constraints.Client) (*admission.AdmissionReview, error) {
	var asked admission.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		return nil, err
	}
	if asked.Request == nil {
		return nil, errors.New("no request")
	}
	about := &target.AugmentedReview{AdmissionRequest: asked.Request, Source: types.SourceTypeOriginal, IsAdmission: true}
	told, err := client.Review(r.Context(), about, reviews.EnforcementPoint(util.WebhookEnforcementPoint))
	if err != nil {
		return nil, err
	}
	var denials []string
	for _, result := range told.Results() {
		denials = append(denials, result.Msg)
	}
	response := &admission.AdmissionResponse{UID: asked.Request.UID, Allowed: len(denials) == 0}
	if len(denials) > 0 {
		response.Result = &metav1.Status{Message: strings.Join(denials, "; ")}
	}
	return &admission.AdmissionReview{TypeMeta: asked.TypeMeta, Response: response}, nil
}
