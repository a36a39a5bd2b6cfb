export default function Page() {
  return <p>embedcore</p>;
}
