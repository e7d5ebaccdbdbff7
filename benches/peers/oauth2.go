// Measures golang.org/x/oauth2 for compare.py: oauth2 QUESTION TASK. It uses the field names of
// RFC 6749, like the API versions before v3.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

type stored struct {
	AccessToken  string `json:"accessToken"`
	RefreshToken string `json:"refreshToken"`
	ExpiresAt    int64  `json:"expiresAt"`
}

type task struct {
	BaseURL      string `json:"baseUrl"`
	ClientID     string `json:"clientId"`
	ClientSecret string `json:"clientSecret"`
	Store        string `json:"store"`
	Token        stored `json:"token"`
	Calls        int    `json:"calls"`
	Callers      int    `json:"callers"`
}

// saving stores the tokens of its source, because the package keeps tokens only in memory.
type saving struct {
	from oauth2.TokenSource
	path string
}

func (source saving) Token() (*oauth2.Token, error) {
	token, err := source.from.Token()
	if err != nil {
		return nil, err
	}
	return token, write(source.path, token)
}

func write(path string, token *oauth2.Token) error {
	text, err := json.Marshal(stored{token.AccessToken, token.RefreshToken, token.Expiry.UnixMilli()})
	if err != nil {
		return err
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	file, err := os.Create(temporary)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func (token stored) token() *oauth2.Token {
	return &oauth2.Token{
		AccessToken:  token.AccessToken,
		RefreshToken: token.RefreshToken,
		Expiry:       time.UnixMilli(token.ExpiresAt),
	}
}

func (task task) config() *oauth2.Config {
	endpoint := oauth2.Endpoint{
		TokenURL:  task.BaseURL + "/oauth/token",
		AuthStyle: oauth2.AuthStyleInParams,
	}
	return &oauth2.Config{ClientID: task.ClientID, ClientSecret: task.ClientSecret, Endpoint: endpoint}
}

// source is a token source that starts with the stored token.
func (task task) source() oauth2.TokenSource {
	text, err := os.ReadFile(task.Store)
	check(err)
	var token stored
	check(json.Unmarshal(text, &token))
	fresh := saving{task.config().TokenSource(context.Background(), token.token()), task.Store}
	return oauth2.ReuseTokenSource(token.token(), fresh)
}

// ask starts concurrent callers for each line of the input.
func (task task) ask() {
	source := task.source()
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		tokens := []string{}
		var all sync.WaitGroup
		var mutex sync.Mutex
		began := time.Now()
		for i := 0; i < task.Callers; i++ {
			all.Add(1)
			go func() {
				defer all.Done()
				if token, err := source.Token(); err == nil {
					mutex.Lock()
					tokens = append(tokens, token.AccessToken)
					mutex.Unlock()
				}
			}()
		}
		all.Wait()
		tell(map[string]interface{}{"tokens": tokens, "ms": time.Since(began).Seconds() * 1e3})
	}
}

func (task task) live() {
	source := oauth2.ReuseTokenSource(task.Token.token(), nil)
	var runs []float64
	for run := 0; run < 11; run++ {
		began := time.Now()
		for i := 0; i < task.Calls; i++ {
			_, err := source.Token()
			check(err)
		}
		runs = append(runs, time.Since(began).Seconds()*1e6/float64(task.Calls))
	}
	tell(map[string]interface{}{"us": median(runs)})
}

func (task task) refresh() {
	refreshToken := task.Token.RefreshToken
	var times []float64
	for i := 0; i < task.Calls; i++ {
		began := time.Now()
		expired := &oauth2.Token{RefreshToken: refreshToken}
		token, err := task.config().TokenSource(context.Background(), expired).Token()
		check(err)
		if task.Store != "" {
			check(write(task.Store, token))
		}
		times = append(times, time.Since(began).Seconds()*1e6)
		refreshToken = token.RefreshToken
	}
	tell(map[string]interface{}{"us": median(times)})
}

func (task task) start() {
	token, err := task.source().Token()
	check(err)
	fmt.Println(token.AccessToken)
}

func median(numbers []float64) float64 {
	sort.Float64s(numbers)
	return numbers[len(numbers)/2]
}

func tell(answer interface{}) {
	check(json.NewEncoder(os.Stdout).Encode(answer))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var task task
	check(json.Unmarshal([]byte(os.Args[2]), &task))
	questions := map[string]func(){
		"ask": task.ask, "live": task.live, "refresh": task.refresh, "start": task.start,
	}
	questions[os.Args[1]]()
}
