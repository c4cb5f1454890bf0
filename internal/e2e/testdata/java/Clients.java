import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** One request with one of Java's own clients: Clients httpclient|urlconnection. What to ask stands in the environment. */
public class Clients {
    public static void main(String[] args) throws Exception {
        URI uri = URI.create(System.getenv("URL"));
        String method = System.getenv("METHOD");
        String bearer = "Bearer " + System.getenv("TOKEN");
        byte[] body = System.getenv("BODY").getBytes();
        if (args[0].equals("httpclient")) {
            HttpRequest request = HttpRequest.newBuilder(uri).header("Authorization", bearer)
                    .method(method, body.length > 0 ? HttpRequest.BodyPublishers.ofByteArray(body) : HttpRequest.BodyPublishers.noBody()).build();
            copy(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofInputStream()).body());
            return;
        }
        HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
        connection.setRequestMethod(method);
        connection.setRequestProperty("Authorization", bearer);
        if (body.length > 0) {
            connection.setDoOutput(true);
            connection.getOutputStream().write(body);
        }
        int status = connection.getResponseCode();
        try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
            copy(in);
        }
    }

    static void copy(InputStream in) throws IOException {
        byte[] buffer = new byte[8192];
        for (int n; (n = in.read(buffer)) >= 0; System.out.flush()) {
            System.out.write(buffer, 0, n);
        }
    }
}
