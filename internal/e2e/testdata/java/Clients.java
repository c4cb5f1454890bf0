import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** One call of one of Java's own clients: java Clients.java httpclient|urlconnection allowed|denied */
public class Clients {
    public static void main(String[] args) throws Exception {
        boolean denied = args[1].equals("denied");
        URI uri = URI.create("https://api.github.com/repos/acme/web" + (denied ? "" : "/issues"));
        String method = denied ? "DELETE" : "GET";
        String bearer = "Bearer " + System.getenv("GITHUB_TOKEN");
        if (args[0].equals("httpclient")) {
            HttpRequest request = HttpRequest.newBuilder(uri).header("Authorization", bearer)
                    .method(method, HttpRequest.BodyPublishers.noBody()).build();
            HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
            return;
        }
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        connection.setRequestMethod(method);
        connection.setRequestProperty("Authorization", bearer);
        int status = connection.getResponseCode();
        try (InputStream body = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            System.out.println(status + " " + new String(body.readAllBytes()));
        }
    }
}
