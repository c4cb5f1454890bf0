using System; using System.IO; using System.Net.Http; using System.Text; using System.Threading.Tasks;
class Plain {
  static string Env(string n) { return Environment.GetEnvironmentVariable(n) ?? ""; }
  static int Main() { return Run().GetAwaiter().GetResult(); }
  static async Task<int> Run() {
    try {
      using (var c = new HttpClient()) {
        c.Timeout = TimeSpan.FromSeconds(60);
        var q = new HttpRequestMessage(new HttpMethod(Env("METHOD")), Env("URL"));
        q.Headers.TryAddWithoutValidation("Authorization", "Bearer " + Env("TOKEN"));
        if (Env("BODY") != "") q.Content = new StringContent(Env("BODY"), Encoding.UTF8, "application/json");
        var a = await c.SendAsync(q, HttpCompletionOption.ResponseHeadersRead);
        var s = new StreamReader(await a.Content.ReadAsStreamAsync());
        string line; while ((line = await s.ReadLineAsync()) != null) { Console.WriteLine(line); Console.Out.Flush(); }
        return a.IsSuccessStatusCode ? 0 : 1;
      }
    } catch (Exception e) {
      for (var x = e; x != null; x = x.InnerException) Console.Error.WriteLine(x.GetType().Name + ": " + x.Message);
      return 1;
    }
  }
}
