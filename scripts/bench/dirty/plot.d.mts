export interface Chart {
  title: string;
  x: string;
  y: string;
  series: { name: string; points: (readonly [number, number])[] }[];
}
export function chart(chart: Chart): string;
